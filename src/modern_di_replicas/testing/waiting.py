import time
import typing


def wait_until(condition: typing.Callable[[], bool], *, timeout: float, interval: float = 0.005) -> bool:
    """Ask until the answer is yes, or until the time is over.

    Args:
        condition: The question; what it raises ends the waiting.
        timeout: The longest wait, in seconds; the question is asked at least once.
        interval: The pause between two questions, in seconds.

    Returns:
        The last answer.

    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
    return True
