"""What a transaction holds, and what can be taken back of it."""

from hypothesis import given
from hypothesis import strategies as st

from streams.engine.changes import Changes

TABLES = ("a", "b")
KEYS, VALUES = st.sampled_from([b"x", b"y"]), st.sampled_from([b"1", b"22", None])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(TABLES), KEYS, VALUES),
        st.tuples(
            st.just("emit"),
            st.sampled_from(["t", "u"]),
            st.integers(0, 1),
            st.tuples(KEYS, VALUES, st.just((("h", b"1"),))),
        ),
        st.tuples(st.just("answer"), st.sampled_from(["e", "f"]), st.integers()),
        st.tuples(st.just("count"), st.sampled_from(["n", "m"])),
    )
)


def do(changes: Changes, steps: list) -> None:  # type: ignore[type-arg]
    for name, *arguments in steps:
        sized = name in ("put", "emit")
        getattr(changes, name)(*arguments, *([10] if sized else []))


def content(changes: Changes) -> tuple[object, ...]:
    counts = {name: count for name, count in changes.counts.items() if count}
    return (changes.rows, dict(changes.outputs), changes.answers, counts, changes.bytes, bool(changes))


@given(kept=STEPS, undone=STEPS, then=STEPS)
def test_undo_takes_back_exactly_what_was_done_since_the_mark(kept: list, undone: list, then: list) -> None:  # type: ignore[type-arg]
    changes, reference = Changes(TABLES), Changes(TABLES)
    do(changes, kept)
    changes.mark()
    do(changes, undone)
    changes.undo()
    do(changes, then)
    do(reference, kept + then)
    assert content(changes) == content(reference)


def test_a_key_is_held_once_with_its_last_value() -> None:
    changes = Changes(TABLES)
    changes.put("a", b"k", b"1", 2)
    changes.put("a", b"k", None, 1)
    changes.put("a", b"k", b"2", 2)
    assert changes.rows == {"a": {b"k": b"2"}, "b": {}}


def test_answers_alone_are_nothing_to_commit() -> None:
    changes = Changes(TABLES)
    assert not changes
    changes.answer("event", 1)
    assert not changes
    changes.positions["in"] = 1
    assert changes
