"""Partitions are spread evenly and stay where they are when workers join or leave."""

import random

import pytest

from exactly_once.faust.assignor import spread


def even(shares: dict[str, set[int]], partitions: int) -> bool:
    """Return whether each partition has one owner and the shares differ by at most one."""
    owned = sorted(partition for share in shares.values() for partition in share)
    sizes = [len(share) for share in shares.values()]
    return owned == list(range(partitions)) and max(sizes) - min(sizes) <= 1


def moved(before: dict[str, set[int]], after: dict[str, set[int]]) -> int:
    """Count the partitions that are taken from a worker that stays in the group."""
    return sum(len(share - after[worker]) for worker, share in before.items() if worker in after)


def test_a_joining_worker_gets_its_share_and_nothing_else_moves() -> None:
    two = {"a": {0, 1}, "b": {2, 3}}
    three = spread(4, {**two, "c": set()})
    assert even(three, 4)
    assert moved(two, three) == 1
    fourteen = {"a": {0, 1, 2, 3, 4}, "b": {5, 6, 7, 8, 9}, "c": {10, 11, 12, 13}}
    four = spread(14, {**fourteen, "d": set()})
    assert even(four, 14)
    assert moved(fourteen, four) == 3


def test_partitions_of_a_leaving_worker_go_to_the_others() -> None:
    assert spread(5, {"a": {0, 1}, "b": {2, 3}}) in ({"a": {0, 1, 4}, "b": {2, 3}}, {"a": {0, 1}, "b": {2, 3, 4}})


def test_workers_without_a_partition_stand_by() -> None:
    shares = spread(2, {"a": {1}, "b": set(), "c": {0}})
    assert shares == {"a": {1}, "b": set(), "c": {0}}


def test_a_partition_claimed_by_two_workers_has_one_owner() -> None:
    shares = spread(4, {"away": {0, 1}, "successor": {0, 1, 2, 3}})
    assert shares == {"away": {0, 1}, "successor": {2, 3}}


@pytest.mark.parametrize("seed", range(50))
def test_shares_stay_even_with_the_fewest_moves(seed: int) -> None:
    chance = random.Random(seed)
    partitions = chance.randrange(1, 40)
    shares = spread(partitions, {"w0": set()})
    for step in range(1, 30):
        claims = dict(shares)
        if chance.random() < 0.5 or len(claims) == 1:
            claims[f"w{step}"] = set()
        else:
            del claims[chance.choice(sorted(claims))]
        after = spread(partitions, claims)
        assert even(after, partitions)
        size, larger = divmod(partitions, len(claims))
        sizes = sorted((len(claim) for claim in claims.values()), reverse=True)
        rooms = [size + (place < larger) for place in range(len(claims))]
        assert moved(claims, after) == sum(max(0, had - room) for had, room in zip(sizes, rooms, strict=True))
        assert spread(partitions, after) == after, "a needless rebalance moves nothing"
        shares = after
