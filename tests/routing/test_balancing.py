import collections
import dataclasses

import hypothesis
from hypothesis import strategies as st

from modern_di_replicas.routing.balancing import WeightedRoundRobin


@dataclasses.dataclass(frozen=True)
class Server:
    name: int
    weight: int


servers = st.lists(st.integers(1, 20), min_size=1, max_size=8).map(
    lambda weights: [Server(name, weight) for name, weight in enumerate(weights)]
)


@hypothesis.given(servers, st.integers(1, 3))
def test_over_the_sum_of_the_weights_each_is_chosen_as_often_as_its_weight(fleet: list[Server], rounds: int) -> None:
    """INVARIANT: exact shares, not only expected ones; another server's turn must not be skipped or doubled."""
    turns = WeightedRoundRobin(fleet)
    total = sum(server.weight for server in fleet)

    chosen = collections.Counter(turns.choose() for _ in range(total * rounds))

    assert chosen == {server: server.weight * rounds for server in fleet}


@hypothesis.given(servers)
def test_equal_weights_take_strict_turns(fleet: list[Server]) -> None:
    """Without weights it is a plain round-robin: nobody is chosen twice before everybody was chosen once."""
    turns = WeightedRoundRobin([dataclasses.replace(server, weight=3) for server in fleet])

    assert len({turns.choose() for _ in fleet}) == len(fleet)


def test_the_heavy_server_does_not_get_its_share_in_one_burst() -> None:
    """Interleaved: a 4:1:1 fleet never serves four in a row from one server within a round."""
    turns = WeightedRoundRobin([Server(0, 4), Server(1, 1), Server(2, 1)])

    assert [turns.choose().name for _ in range(6)] == [0, 0, 1, 0, 2, 0]
