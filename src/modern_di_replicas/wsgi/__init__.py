"""WSGI: accept and issue the tokens of clients. See PEP 3333."""
