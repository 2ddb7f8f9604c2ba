"""Promise 10: writes of a replaced producer are found."""

from collections.abc import Sequence

from oracle.checks.zombies import replaced_producers_write_nothing
from oracle.facts import StaleWrite
from oracle.log import Batch
from oracle.writers import Writers
from tests.oracle.planted import facts_of, sentences


def stale_writes(
    batches: Sequence[tuple[int, int]], *, single_writer: bool = True, partitions: Sequence[int] = ()
) -> list[StaleWrite]:
    """Return the stale ones of these batches (producer, epoch), by default in one partition."""
    writers = Writers()
    found = []
    for number, (producer, epoch) in enumerate(batches):
        partition = partitions[number] if partitions else 0
        batch = Batch("d-orders-changelog", partition, number, number + 1, 0, producer, epoch, True, False, None)
        if wrong := writers.note(batch, single_writer=single_writer):
            found.append(wrong)
    return found


def test_rising_epochs_are_accepted() -> None:
    assert not stale_writes([(7, 0), (7, 1), (7, 1), (7, 5)])
    assert not stale_writes([(7, 32_766), (8, 0), (8, 1), (9, 0)])
    assert not stale_writes([(7, 0), (8, 4), (7, 1), (8, 5)], single_writer=False)
    assert not stale_writes([(7, 5), (7, 1)], partitions=[0, 1])


def test_lower_epoch_is_found() -> None:
    (wrong,) = stale_writes([(7, 0), (7, 3), (7, 2), (7, 4)])
    assert wrong[1:5] == (7, 2, 7, 3)
    assert stale_writes([(7, 0), (8, 4), (7, 1), (8, 3)], single_writer=False)
    facts = facts_of(written=4, stale_writes=[wrong])
    assert replaced_producers_write_nothing(facts).checked == 4
    assert sentences(replaced_producers_write_nothing(facts)) == [
        "d-orders-changelog/0 at 2 was written by producer 7 in epoch 2, after producer 7 in epoch 3 "
        "(d-orders-changelog/0 at 1)"
    ]


def test_producer_after_its_successor_is_found() -> None:
    (wrong,) = stale_writes([(7, 9), (8, 0), (7, 10), (8, 1)])
    assert wrong[1:5] == (7, 10, 8, 0)
