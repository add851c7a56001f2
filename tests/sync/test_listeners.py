"""The claims of `tests/session/test_listeners.py`, on synchronous sessions."""

from tests.session import test_listeners
from tests.sync.awaitable import hold_to


hold_to(test_listeners, globals(), without=("test_a_codec_of_a_connect_listener_applies_to_each_connection",))
