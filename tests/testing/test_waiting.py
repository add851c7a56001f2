from modern_di_replicas.testing.waiting import wait_until


def test_waiting_ends_with_the_first_yes() -> None:
    """Nothing is waited for that is already true."""
    answers = iter([False, True])

    assert wait_until(lambda: next(answers), timeout=10.0)


def test_waiting_ends_with_the_time() -> None:
    """A condition that never comes true costs its bound and no more."""
    assert not wait_until(lambda: False, timeout=0.0)
