"""Carry tokens in requests and responses: in a cookie, or in a separate header."""

import collections.abc
import typing

from modern_di_replicas.settings import ReplicationSettings


Headers = collections.abc.Iterable[tuple[bytes, bytes]]

_SECURE_NAMES: typing.Final = ("__host-", "__secure-")
"""Browsers accept cookies with this prefix only with the attribute `Secure`. RFC 6265bis, section 4.1.3."""


class Carrier:
    """Carries the tokens of clients in HTTP headers, as a cookie or as a separate header.

    Args:
        settings: the choice of the two, and the name.

    """

    def __init__(self, settings: ReplicationSettings) -> None:
        self._attributes = f"Max-Age={settings.token_seconds}; Path=/; HttpOnly; SameSite=Lax"
        self._name = settings.token_name
        self._header = settings.token_name.lower().encode()
        self._is_cookie = settings.token_carrier == "cookie"  # noqa: S105  # a kind, not a secret
        self._is_always_secure = settings.token_name.lower().startswith(_SECURE_NAMES)

    def read(self, headers: Headers) -> list[str]:
        """Return every token text of a request."""
        if not self._is_cookie:
            return [value.decode("latin-1") for name, value in headers if name == self._header]
        return [
            value.strip()
            for name, line in headers
            if name == b"cookie" and self._header in line.lower()
            for pair in line.decode("latin-1").split(";")
            for key, _, value in [pair.partition("=")]
            if key.strip() == self._name
        ]

    def write(self, headers: Headers, text: str, *, scheme: str) -> list[tuple[bytes, bytes]]:
        """Return the headers of a response with a token.

        A cache that stored the response would send the token to other clients. So `Cache-Control` forbids that, unless
        the application has set the header.
        """
        written = [*headers, (self._header, text.encode())]
        if self._is_cookie:
            secure = "; Secure" if scheme == "https" or self._is_always_secure else ""
            written[-1] = (b"set-cookie", f"{self._name}={text}; {self._attributes}{secure}".encode())
        if not any(name.lower() == b"cache-control" for name, _ in written):
            written.append((b"cache-control", b"no-store"))
        return written
