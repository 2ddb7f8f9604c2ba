"""Promise 10: a producer that writes after it was replaced is found."""

from collections.abc import Sequence

from oracle.checks.zombies import the_replaced_write_nothing
from oracle.facts import Overtaken
from oracle.log import Batch
from oracle.writers import Writers
from tests.oracle.planted import known, sentences


def seen(batches: Sequence[tuple[int, int]], *, alone: bool = True, partitions: Sequence[int] = ()) -> list[Overtaken]:
    """What is wrong with batches by (producer, epoch), one after the other in one partition unless said otherwise."""
    writers = Writers()
    found = []
    for number, (producer, epoch) in enumerate(batches):
        partition = partitions[number] if partitions else 0
        batch = Batch("d-orders-changelog", partition, number, number + 1, 0, producer, epoch, True, False, None)
        if wrong := writers.note(batch, alone=alone):
            found.append(wrong)
    return found


def test_epochs_that_rise_are_not_complained_about() -> None:
    assert not seen([(7, 0), (7, 1), (7, 1), (7, 5)])
    assert not seen([(7, 32_766), (8, 0), (8, 1), (9, 0)])
    assert not seen([(7, 0), (8, 4), (7, 1), (8, 5)], alone=False)
    assert not seen([(7, 5), (7, 1)], partitions=[0, 1])


def test_an_epoch_that_was_passed_is_found() -> None:
    (wrong,) = seen([(7, 0), (7, 3), (7, 2), (7, 4)])
    assert wrong[1:5] == (7, 2, 7, 3)
    assert seen([(7, 0), (8, 4), (7, 1), (8, 3)], alone=False)
    facts = known(written=4, overtaken=[wrong])
    assert the_replaced_write_nothing(facts).checked == 4
    assert sentences(the_replaced_write_nothing(facts)) == [
        "d-orders-changelog/0 at 2 was written by producer 7 in epoch 2, after producer 7 in epoch 3 "
        "(d-orders-changelog/0 at 1)"
    ]


def test_a_producer_that_another_one_has_followed_on_is_found() -> None:
    (wrong,) = seen([(7, 9), (8, 0), (7, 10), (8, 1)])
    assert wrong[1:5] == (7, 10, 8, 0)
