from modern_di_replicas.testing.waiting import wait_until


def test_waiting_ends_with_the_first_yes() -> None:
    """A condition that already holds causes no wait."""
    answers = iter([False, True])

    assert wait_until(lambda: next(answers), timeout=10.0)


def test_waiting_ends_with_the_time() -> None:
    """The timeout limits a condition that never holds."""
    assert not wait_until(lambda: False, timeout=0.0)
