import time
import typing


def wait_until(condition: typing.Callable[[], bool], *, timeout: float, interval: float = 0.005) -> bool:
    """Check a condition until it is true, or until the timeout.

    Args:
        condition: The condition; an exception ends the wait.
        timeout: The timeout in seconds; the condition is checked at least once.
        interval: The pause between two checks, in seconds.

    Returns:
        The last result.

    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
    return True
