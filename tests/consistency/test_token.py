import hypothesis
import pytest
from hypothesis import strategies as st

from modern_di_replicas import ConfigurationError, ConsistencyToken
from modern_di_replicas.consistency.token import LONGEST_TEXT, identify


tokens = st.builds(
    ConsistencyToken,
    lsn=st.integers(0, 2**64 - 1),
    timeline=st.integers(1, 2**32 - 1),
    database=st.builds(identify, st.integers(0, 2**63), st.text()),
    issued_at=st.integers(0, 2**40 - 1),
)


@hypothesis.given(tokens)
def test_the_text_of_a_token_is_read_again_as_the_same_token(token: ConsistencyToken) -> None:
    """The text is short, and valid in a cookie, a header and a URL."""
    text = str(token)

    assert ConsistencyToken.parse(text) == token
    assert len(text) <= LONGEST_TEXT
    assert set(text) <= set("0123456789abcdef.")


@hypothesis.given(st.text())
def test_other_texts_are_not_tokens(text: str) -> None:
    """The error quotes it and names the expected format."""
    with pytest.raises(ConfigurationError, match="ConsistencyToken") as caught:
        ConsistencyToken.parse(text)
    assert caught.value.field == "token"


@pytest.mark.parametrize(
    "text", ["1.00ff00ff00ff00ff.01.3022000.6", "1.00FF00FF00FF00FF.1.3022000.6", "1.00ff00ff00ff00ff.1.3022000.6\n", 7]
)
def test_a_token_has_one_text(text: str) -> None:
    """No leading zeros, capitals or spaces: different texts are different tokens."""
    with pytest.raises(ConfigurationError):
        ConsistencyToken.parse(text)


def test_a_database_is_named_alike_on_every_server_and_unlike_any_other() -> None:
    """Clients receive this name; it reveals nothing about the database."""
    assert identify(7, "app") == identify(7, "app")
    assert len({identify(7, "app"), identify(7, "other"), identify(8, "app"), identify(75, "app")}) == 4


def test_a_token_of_a_former_cluster_is_not_compared() -> None:
    """Positions of two clusters are not comparable."""
    here, there = (
        ConsistencyToken(lsn=9, timeline=1, database=database, issued_at=0) for database in ("a" * 16, "b" * 16)
    )
    assert here.is_after(here)
    assert not here.is_after(there)
