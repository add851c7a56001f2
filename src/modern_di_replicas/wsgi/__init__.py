"""WSGI: the tokens of clients, in and out. See PEP 3333."""
