"""Where a request and a response carry a token: a cookie, or a header of its own."""

import collections.abc

from modern_di_replicas.settings import ReplicationSettings


class Carrier:
    """Carries the tokens of clients in the headers of HTTP, as a cookie or as a header of its own.

    Args:
        settings: which of the two, and its name.

    """

    def __init__(self, settings: ReplicationSettings) -> None:
        self._attributes = f"Max-Age={settings.token_seconds}; Path=/; HttpOnly; SameSite=Lax"
        self._name = settings.token_name
        self._header = settings.token_name.lower().encode()
        self._is_cookie = settings.token_carrier == "cookie"  # noqa: S105  # a kind, not a secret

    def read(self, headers: collections.abc.Iterable[tuple[bytes, bytes]]) -> list[str]:
        """Return every text a request carries."""
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

    def write(self, text: str, *, scheme: str) -> tuple[bytes, bytes]:
        """Return the header of a response that hands a token out."""
        if not self._is_cookie:
            return self._header, text.encode()
        return b"set-cookie", f"{self._name}={text}; {self._attributes}{'; Secure' * (scheme == 'https')}".encode()
