"""Promise 9: a partition that stands still, and a bad record that is not set aside, are found."""

from oracle.checks.progress import partitions_move, poison_is_set_aside, what_is_none_is_set_aside
from oracle.facts import Letter, Reached, Where
from oracle.ledgers import PoisonLine
from tests.oracle.planted import ORDERS, at, known, lines, sentences
from topics.records import instant

BAD = Where(ORDERS, 0, 5)
LETTER = Letter(Where("d.dead-letters", 0, 1), BAD, b"", b"x")
APPLIED = {(ORDERS, 0): Reached(position=9, last=8)}


def poison() -> list[PoisonLine]:
    """The ledger of one bad record."""
    return lines(PoisonLine(at=instant(at(1)), topic=ORDERS, partition=0, offset=5, id="bad-1"))


def test_a_partition_that_stands_still_before_a_record_is_found() -> None:
    behind = {(ORDERS, 0): Reached(position=5, last=8), (ORDERS, 1): Reached(position=9, last=8)}
    assert partitions_move(known(reached=behind)) == (2, [], ""), "it was looked at once"
    assert sentences(partitions_move(known(reached=behind, stuck={(ORDERS, 0)}, stuck_s=10.0))) == [
        "d.orders/0 stands at 5 for 10 s, and holds records up to 8"
    ]
    assert behind[ORDERS, 0].behind
    assert not behind[ORDERS, 1].behind


def test_poison_that_is_not_among_the_dead_letters_is_found() -> None:
    assert not poison_is_set_aside(known(poison=poison(), letters=[LETTER])).violations
    assert sentences(poison_is_set_aside(known(poison=poison()))) == [
        "the record bad-1 (d.orders/0 at 5, ledger.jsonl line 1) is not among the dead letters"
    ]
    assert not poison_is_set_aside(known(poison=poison(), now=1.1, patience_ms=5_000)).violations
    assert not poison_is_set_aside(known(poison=poison(), since_ms=at(2))).violations
    assert poison_is_set_aside(known()).unjudged


def test_poison_that_was_sent_on_to_its_partition_first_is_known_by_its_id() -> None:
    sent_on = LETTER._replace(origin=Where(ORDERS, 1, 7), value=b'{"note":"bad-1"}')
    assert not poison_is_set_aside(known(poison=poison(), letters=[sent_on])).violations
    for other in (sent_on._replace(value=b"bad"), sent_on._replace(origin=Where(ORDERS, 0, 7))):
        assert poison_is_set_aside(known(poison=poison(), letters=[other])).violations


def test_what_is_no_record_and_was_passed_by_unseen_is_found() -> None:
    assert not what_is_none_is_set_aside(known(malformed=[BAD], reached=APPLIED, letters=[LETTER])).violations
    assert sentences(what_is_none_is_set_aside(known(malformed=[BAD], reached=APPLIED))) == [
        "d.orders/0 at 5 holds nothing that could be applied, and is not among the dead letters"
    ]
    waits = {(ORDERS, 0): Reached(position=5, last=8)}
    assert not what_is_none_is_set_aside(known(malformed=[BAD], reached=waits)).violations
