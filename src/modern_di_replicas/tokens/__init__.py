"""The tokens of clients: their HTTP headers, and their validation."""
