"""Contents of a pending transaction, and its rollback."""

from hypothesis import given
from hypothesis import strategies as st

from exactly_once.task.transaction import PendingTransaction

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
        st.tuples(st.just("after_commit"), st.sampled_from([bool, list])),
        st.tuples(st.just("count"), st.sampled_from(["n", "m"])),
    )
)


def do(changes: PendingTransaction, steps: list) -> None:  # type: ignore[type-arg]
    for name, *arguments in steps:
        sized = name in ("put", "emit")
        getattr(changes, name)(*arguments, *([10] if sized else []))


def content(changes: PendingTransaction) -> tuple[object, ...]:
    counts = {name: count for name, count in changes.counts.items() if count}
    return (
        changes.rows,
        dict(changes.outputs),
        changes.answers,
        changes.callbacks,
        counts,
        changes.bytes,
        bool(changes),
    )


@given(kept=STEPS, undone=STEPS, then=STEPS)
def test_rollback_undoes_exactly_what_followed_the_savepoint(kept: list, undone: list, then: list) -> None:  # type: ignore[type-arg]
    changes, reference = PendingTransaction(TABLES), PendingTransaction(TABLES)
    do(changes, kept)
    changes.savepoint()
    do(changes, undone)
    changes.rollback()
    do(changes, then)
    do(reference, kept + then)
    assert content(changes) == content(reference)


def test_a_key_is_stored_once_with_its_last_value() -> None:
    changes = PendingTransaction(TABLES)
    changes.put("a", b"k", b"1", 2)
    changes.put("a", b"k", None, 1)
    changes.put("a", b"k", b"2", 2)
    assert changes.rows == {"a": {b"k": b"2"}, "b": {}}


def test_answers_alone_need_no_commit() -> None:
    changes = PendingTransaction(TABLES)
    assert not changes
    changes.answer("event", 1)
    assert not changes
    changes.positions["in"] = 1
    assert changes
