import pytest

from recipes.failover.app import main


async def test_the_application_follows_the_primary(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line shows what the servers report."""
    await main()

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a write goes to primary"
    assert lines[1].startswith("a read sees 1 note on replica-")
    assert lines[2:] == [
        "primary is stopped, replica-1 is promoted",
        "a write goes to replica-1",
        "primary is back, as a replica",
        "it serves reads, and a read sees 2 notes",
    ]
