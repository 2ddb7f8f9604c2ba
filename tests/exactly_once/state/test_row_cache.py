"""The cache of recently used rows is never outdated and never too large."""

from hypothesis import given
from hypothesis import strategies as st

from exactly_once.state.row_cache import TwoGenerationCache
from exactly_once.task.transaction import UNSET

STEPS = st.tuples(st.sampled_from(["read", "renew", "forget"]), st.integers(0, 9), st.integers(0, 20))


@given(steps=st.lists(STEPS), size=st.integers(1, 4))
def test_the_cache_has_the_last_written_values(steps: list[tuple[str, int, int]], size: int) -> None:
    """Use the cache as the store does: rows that are not cached come from the disk, and every write updates it."""
    disk: dict[int, int] = {}
    recent = TwoGenerationCache[int, int | None](size)
    for what, key, value in steps:
        if what == "renew":
            disk |= {key: value, key + 1: value + 1}
            recent.update_if_warm({key: value, key + 1: value + 1})
        elif what == "forget":
            recent.forget(key)
            assert recent.get(key) is UNSET
        elif (found := recent.get(key)) is UNSET:
            recent.put(key, disk.get(key))
        else:
            assert found == disk.get(key)


def test_the_cache_keeps_recently_used_rows_only() -> None:
    recent = TwoGenerationCache[int, str](10)
    for key in range(100):
        recent.put(key, "x")
        assert recent.get(0) == "x"
    assert sum(recent.get(key) is not UNSET for key in range(100)) <= 20


def test_the_cache_ignores_writes_of_rows_that_were_not_read() -> None:
    recent = TwoGenerationCache[int, str](10)
    recent.update_if_warm({1: "a"})
    assert recent.get(1) is UNSET
    recent.put(2, "b")
    recent.update_if_warm({1: "a", 2: "c"})
    assert (recent.get(1), recent.get(2)) == ("a", "c")
