"""Only signed tokens, or tokens in the exact format, are accepted from clients."""

import dataclasses
import random
import time

import pytest

from modern_di_replicas import ConsistencyToken, ReplicationSettings, Tokens
from modern_di_replicas.consistency import serializer


ALPHABET = "0123456789abcdefABCDEF.-_=;, \x00\x7fé٣"


def settings(secret: str | list[str] | None = None) -> ReplicationSettings:
    return ReplicationSettings(primary="postgresql+asyncpg://app@db-1/shop", token_secret=secret)


def token(**facts: object) -> ConsistencyToken:
    given = ConsistencyToken(lsn=0x3022000, timeline=1, database="00ff00ff00ff00ff", issued_at=int(time.time()))
    return dataclasses.replace(given, **facts)  # type: ignore[arg-type]  # a test names the fields it means


def mutated(text: str, source: random.Random) -> str:
    """Return a modified text: with characters changed, added, removed or repeated."""
    for _ in range(source.randint(1, 4)):
        at = source.randint(0, len(text))
        part = "".join(source.choices(ALPHABET, k=source.randint(0, 3)))
        text = text[:at] + part + text[at + source.randint(0, 3) :]
    return text * source.choice((1, 1, 1, 1, 2, 50))


@pytest.mark.parametrize("number", [3_000, pytest.param(50_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("secret", [None, "another"])
def test_of_many_forged_tokens_none_is_accepted(secret: str | None, number: int) -> None:
    """Without a secret, a token may be constructed by a client; then its format must be exact."""
    source = random.Random(5)  # noqa: S311  # for variety, not for secrets
    tokens = Tokens(settings(secret))
    genuine = tokens.encode(token())
    believed = []
    for _ in range(number):
        text = mutated(genuine, source)
        found = tokens.decode(text)
        if found is not None and text != genuine:
            believed.append((text, found))
    for _ in range(number):
        text = "".join(source.choices(ALPHABET, k=source.randint(0, 90)))
        assert tokens.decode(text) is None

    assert tokens.decode(genuine) == token(issued_at=tokens.decode(genuine).issued_at)  # type: ignore[union-attr]  # it is one
    if secret is None:
        assert all(str(found) == text for text, found in believed)
    else:
        assert believed == []
    assert tokens.rejected.total() >= number


def test_a_secret_can_be_rotated_without_a_token_lost() -> None:
    """First every process accepts the new secret, then signs with it, then the old secret is removed."""
    old, both, new, other = (Tokens(settings(s)) for s in ("old", ["old", "new"], "new", "other"))
    of_old, of_new = old.encode(token()), both.encode(token())

    assert both.decode(of_old) == both.decode(of_new) == new.decode(of_new) == token(issued_at=token().issued_at)
    assert [tokens.decode(text) for tokens, text in ((old, of_new), (new, of_old), (other, of_old))] == [None] * 3
    assert other.rejected == {"forged": 1}


@pytest.mark.parametrize(("age", "believed"), [(0, True), (59, True), (61, False), (-59, True), (-61, False)])
def test_a_token_counts_for_its_lifetime_and_no_longer(age: int, believed: bool) -> None:
    """With a tolerance for clock differences between hosts, in both directions."""
    tokens = Tokens(settings())
    assert (tokens.decode(str(token(issued_at=int(time.time()) - age))) is not None) is believed


@pytest.mark.parametrize("secret", [None, "another"])
def test_the_texts_that_come_most_often_are_not_read_again(secret: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issued and accepted texts are cached, up to a limit that holds for any number of forged ones."""
    monkeypatch.setattr(serializer, "CACHED", 3)
    mine, theirs = Tokens(settings(secret)), Tokens(settings(secret))
    genuine = token()
    text = mine.encode(genuine)
    read: list[str] = []

    def parse(text: str) -> ConsistencyToken:
        read.append(text)
        return genuine

    monkeypatch.setattr(ConsistencyToken, "parse", parse)

    assert mine.decode(text) is genuine
    assert not read
    assert [theirs.decode(text) for _ in range(3)] == [genuine] * 3
    assert len(read) == 1
    for number in range(10):
        mine.encode(token(lsn=number))
    assert mine.decode(text) is genuine
    assert len(read) == 2
