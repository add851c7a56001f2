import collections
import dataclasses
import random

import hypothesis
from hypothesis import strategies as st

from modern_di_replicas.routing.balancing import LeastInUse, Random, RoundRobin, with_affinity


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
def test_over_the_sum_of_the_weights_each_is_chosen_as_often_as_its_weight(topology: list[Server], rounds: int) -> None:
    """INVARIANT: exact shares, not only expected ones; another server's turn must not be skipped or doubled."""
    turns = RoundRobin()
    total = sum(server.weight for server in topology)

    chosen = collections.Counter(turns.choose(topology) for _ in range(total * rounds))

    assert chosen == {server: server.weight * rounds for server in topology}


@hypothesis.given(servers)
def test_equal_weights_take_strict_turns(topology: list[Server]) -> None:
    """Each server is chosen once before any is chosen twice."""
    turns = RoundRobin()
    equals = [dataclasses.replace(server, weight=3) for server in topology]

    assert len({turns.choose(equals) for _ in topology}) == len(topology)


def test_the_heavy_server_does_not_get_its_share_in_one_burst() -> None:
    """A 4:1:1 topology never serves four consecutive reads from one server within a round."""
    turns = RoundRobin()
    topology = [Server("a", 4), Server("b", 1), Server("c", 1)]

    assert [turns.choose(topology).name for _ in range(6)] == ["a", "a", "b", "a", "c", "a"]


@hypothesis.given(servers, st.data())
def test_candidates_may_come_and_go(topology: list[Server], data: st.DataObject) -> None:
    """INVARIANT: the choice is one of the current candidates, also after others have left."""
    turns = RoundRobin()

    for _ in range(5):
        present = data.draw(st.lists(st.sampled_from(topology), min_size=1, unique=True))
        assert turns.choose(present) in present


@hypothesis.given(servers, st.data())
def test_the_least_used_for_its_weight_is_chosen(topology: list[Server], data: st.DataObject) -> None:
    """INVARIANT: no other server has fewer connections in use relative to its weight."""
    used = [dataclasses.replace(server, in_use=data.draw(st.integers(0, 50))) for server in topology]

    chosen = LeastInUse().choose(used)

    assert chosen.in_use / chosen.weight == min(server.in_use / server.weight for server in used)


def test_many_replicas_are_all_chosen() -> None:
    """Only a few are compared at a time, but changing ones: in a thousand rounds, each is chosen."""
    topology, balancer = [Server(str(number), 1) for number in range(64)], LeastInUse()

    chosen = collections.Counter(balancer.choose(topology).name for _ in range(64 * 100))

    assert len(chosen) == 64
    assert max(chosen.values()) < 200


def test_random_choices_follow_the_weights() -> None:
    """Weights of 9:1 give 9:1 within four standard deviations of 10,000 choices."""
    topology, balancer = [Server("a", 9), Server("b", 1)], Random(random.Random(1))  # noqa: S311  # repeatable

    chosen = collections.Counter(balancer.choose(topology).name for _ in range(10_000))

    assert abs(chosen["a"] - 9_000) < 4 * (10_000 * 0.9 * 0.1) ** 0.5
    assert Random().choose(topology) in topology


@hypothesis.given(servers, st.text())
def test_the_same_key_stays_where_it_is_when_another_server_goes(topology: list[Server], key: str) -> None:
    """INVARIANT: rendezvous hashing: only the keys of the removed server move."""
    home = with_affinity(key, topology)

    for gone in topology:
        rest = [server for server in topology if server is not gone]
        if gone is not home:
            assert with_affinity(key, rest) is home


def test_keys_are_shared_by_weight() -> None:
    """Weights of 9:1 give 9:1 of the clients, within four standard deviations."""
    topology = [Server("a", 9), Server("b", 1)]

    homes = collections.Counter(with_affinity(str(key), topology).name for key in range(10_000))

    assert abs(homes["a"] - 9_000) < 4 * (10_000 * 0.9 * 0.1) ** 0.5
