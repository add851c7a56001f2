import typing

from tests.soak.growth import evaluate


def samples(**growth: float) -> list[dict[str, typing.Any]]:
    """Return thirty samples that grow by a constant amount."""
    kinds = {"memory": 10**8, "tasks": 20, "descriptors": 40, "objects": 10**5}
    return [{kind: base + growth.get(kind, 0) * number for kind, base in kinds.items()} for number in range(30)]


def test_growth_of_the_control_too_is_not_a_leak() -> None:
    """Allocators and caches grow for both."""
    assert evaluate(samples(memory=10**7), samples(memory=10**7), warming_up=0.3) == []


def test_growth_beyond_the_control_is_a_leak() -> None:
    """The error names the kind of growth."""
    for kind, step in {"memory": 10**7, "tasks": 3, "descriptors": 10, "objects": 10**4}.items():
        leaky = samples(**{kind: step})
        leaky[-1] = leaky[0]
        complaints = evaluate(leaky, samples(), warming_up=0.3)
        assert len(complaints) == 1
        assert complaints[0].startswith(kind)


def test_resources_left_at_the_end_are_named() -> None:
    """It was needed under load, but not at the end."""
    left = samples()
    left[-1] = {**left[-1], "tasks": left[0]["tasks"] + 1, "descriptors": left[0]["descriptors"] + 4}
    assert [line.partition(":")[0] for line in evaluate(left, samples(), warming_up=0.3)] == ["tasks", "descriptors"]
