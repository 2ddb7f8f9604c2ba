"""What was used lately: never what it is no more, and never too much."""

from hypothesis import given
from hypothesis import strategies as st

from streams.engine.changes import MISSING
from streams.engine.recent import Recent

STEPS = st.tuples(st.sampled_from(["read", "renew", "forget"]), st.integers(0, 9), st.integers(0, 20))


@given(steps=st.lists(STEPS), size=st.integers(1, 4))
def test_what_is_kept_is_what_was_written_last(steps: list[tuple[str, int, int]], size: int) -> None:
    """As the store uses it: read from the disk where nothing is kept, renewed with every write."""
    disk: dict[int, int] = {}
    recent = Recent[int, int | None](size)
    for what, key, value in steps:
        if what == "renew":
            disk |= {key: value, key + 1: value + 1}
            recent.renew({key: value, key + 1: value + 1})
        elif what == "forget":
            recent.forget(key)
            assert recent.get(key) is MISSING
        elif (found := recent.get(key)) is MISSING:
            recent.put(key, disk.get(key))
        else:
            assert found == disk.get(key)


def test_what_was_used_last_stays_and_the_rest_is_forgotten() -> None:
    recent = Recent[int, str](10)
    for key in range(100):
        recent.put(key, "x")
        assert recent.get(0) == "x"
    assert sum(recent.get(key) is not MISSING for key in range(100)) <= 20


def test_where_nothing_was_read_nothing_is_remembered() -> None:
    recent = Recent[int, str](10)
    recent.renew({1: "a"})
    assert recent.get(1) is MISSING
    recent.put(2, "b")
    recent.renew({1: "a", 2: "c"})
    assert (recent.get(1), recent.get(2)) == ("a", "c")
