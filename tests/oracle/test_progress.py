"""Promise 9: stuck partitions, and bad records without a dead letter, are found."""

from oracle.checks.progress import malformed_records_are_set_aside, partitions_move, poison_is_set_aside
from oracle.facts import DeadLetter, Location, SourceProgress
from oracle.ledgers import PoisonLine
from tests.oracle.planted import ORDERS, at, facts_of, lines, sentences
from topics.records import instant

BAD = Location(ORDERS, 0, 5)
LETTER = DeadLetter(Location("d.dead-letters", 0, 1), BAD, b"", b"x")
APPLIED = {(ORDERS, 0): SourceProgress(position=9, last=8)}


def poison() -> list[PoisonLine]:
    """Return the ledger of one bad record."""
    return lines(PoisonLine(at=instant(at(1)), topic=ORDERS, partition=0, offset=5, id="bad-1"))


def test_stuck_partition_is_found() -> None:
    behind = {(ORDERS, 0): SourceProgress(position=5, last=8), (ORDERS, 1): SourceProgress(position=9, last=8)}
    assert partitions_move(facts_of(reached=behind)) == (2, [], ""), "one look cannot find it"
    assert sentences(partitions_move(facts_of(reached=behind, stuck={(ORDERS, 0)}, stuck_s=10.0))) == [
        "d.orders/0 has been at position 5 for 10 s, with records up to 8"
    ]
    assert behind[ORDERS, 0].behind
    assert not behind[ORDERS, 1].behind


def test_poison_without_dead_letter_is_found() -> None:
    assert not poison_is_set_aside(facts_of(poison=poison(), dead_letters=[LETTER])).violations
    assert sentences(poison_is_set_aside(facts_of(poison=poison()))) == [
        "the record bad-1 (d.orders/0 at 5, ledger.jsonl line 1) is not among the dead letters"
    ]
    assert not poison_is_set_aside(facts_of(poison=poison(), now=1.1, patience_ms=5_000)).violations
    assert not poison_is_set_aside(facts_of(poison=poison(), since_ms=at(2))).violations
    assert poison_is_set_aside(facts_of()).unjudged


def test_forwarded_poison_is_recognized_by_its_id() -> None:
    forwarded = LETTER._replace(origin=Location(ORDERS, 1, 7), value=b'{"note":"bad-1"}')
    assert not poison_is_set_aside(facts_of(poison=poison(), dead_letters=[forwarded])).violations
    for other in (forwarded._replace(value=b"bad"), forwarded._replace(origin=Location(ORDERS, 0, 7))):
        assert poison_is_set_aside(facts_of(poison=poison(), dead_letters=[other])).violations


def test_passed_malformed_record_without_dead_letter_is_found() -> None:
    assert not malformed_records_are_set_aside(
        facts_of(malformed=[BAD], reached=APPLIED, dead_letters=[LETTER])
    ).violations
    assert sentences(malformed_records_are_set_aside(facts_of(malformed=[BAD], reached=APPLIED))) == [
        "d.orders/0 at 5 is no record of its topic, but is not among the dead letters"
    ]
    behind = {(ORDERS, 0): SourceProgress(position=5, last=8)}
    assert not malformed_records_are_set_aside(facts_of(malformed=[BAD], reached=behind)).violations
