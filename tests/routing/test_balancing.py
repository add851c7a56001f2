import collections
import dataclasses

import hypothesis
from hypothesis import strategies as st

from modern_di_replicas.routing.balancing import RoundRobin


@dataclasses.dataclass(frozen=True)
class Server:
    name: str
    weight: int
    in_use: int = 0
    has_room: bool = True


servers = st.lists(st.integers(1, 20), min_size=1, max_size=8).map(
    lambda weights: [Server(str(name), weight) for name, weight in enumerate(weights)]
)


@hypothesis.given(servers, st.integers(1, 3))
def test_over_the_sum_of_the_weights_each_is_chosen_as_often_as_its_weight(fleet: list[Server], rounds: int) -> None:
    """INVARIANT: exact shares, not only expected ones; another server's turn must not be skipped or doubled."""
    turns = RoundRobin()
    total = sum(server.weight for server in fleet)

    chosen = collections.Counter(turns.choose(fleet) for _ in range(total * rounds))

    assert chosen == {server: server.weight * rounds for server in fleet}


@hypothesis.given(servers)
def test_equal_weights_take_strict_turns(fleet: list[Server]) -> None:
    """Without weights it is a plain round-robin: nobody is chosen twice before everybody was chosen once."""
    turns = RoundRobin()
    equals = [dataclasses.replace(server, weight=3) for server in fleet]

    assert len({turns.choose(equals) for _ in fleet}) == len(fleet)


def test_the_heavy_server_does_not_get_its_share_in_one_burst() -> None:
    """Interleaved: a 4:1:1 fleet never serves four in a row from one server within a round."""
    turns = RoundRobin()
    fleet = [Server("a", 4), Server("b", 1), Server("c", 1)]

    assert [turns.choose(fleet).name for _ in range(6)] == ["a", "a", "b", "a", "c", "a"]


@hypothesis.given(servers, st.data())
def test_candidates_may_come_and_go(fleet: list[Server], data: st.DataObject) -> None:
    """INVARIANT: the choice is one of the candidates, whoever was there before."""
    turns = RoundRobin()

    for _ in range(20):
        present = data.draw(st.lists(st.sampled_from(fleet), min_size=1, unique=True))
        assert turns.choose(present) in present
