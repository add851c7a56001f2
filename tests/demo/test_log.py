"""The library's log on the screen."""

from modern_di_replicas.demo.log import LOGGER, shown_log


def test_warnings_are_shown_while_the_block_runs() -> None:
    """Records below that level are not shown, and none are after the block."""
    shown: list[str] = []
    with shown_log(shown.append):
        LOGGER.warning("The primary is %s now.", "db-2")
        LOGGER.info("connected")
    LOGGER.warning("later")
    assert shown == ["WARNING: The primary is db-2 now."]
