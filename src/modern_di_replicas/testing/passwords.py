"""The superuser's password in PostgreSQL's stored form."""

import base64
import hashlib
import hmac
import secrets
import typing


ITERATIONS: typing.Final = 1
"""PostgreSQL's default of 4096 slows down guessing, and every connection; this password is random."""


def stored(password: str) -> str:
    """Return the SCRAM secret of a password, which PostgreSQL accepts instead of the password.

    https://www.postgresql.org/docs/current/catalog-pg-authid.html has the form, RFC 5803 the arithmetic.
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    parts = (salt, hashlib.sha256(client_key).digest(), server_key)
    encoded_salt, stored_key, encoded_server_key = (base64.b64encode(part).decode() for part in parts)
    return f"SCRAM-SHA-256${ITERATIONS}:{encoded_salt}${stored_key}:{encoded_server_key}"
