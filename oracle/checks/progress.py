"""Promise 9: no record stops a partition. A record that cannot be applied becomes a dead letter.

The positions of a task are rows of its table `positions`, whose changelog is a committed topic. A partition is stuck if
it holds records beyond its position, and the position did not change while the oracle looked.

Two kinds of records cannot be applied: those of `poison.jsonl`, and those that are no record of their topic. Each of
them has to be among the dead letters, which name their origin, once the task has passed it.
"""

from oracle.facts import DeadLetter, Facts, Location
from oracle.findings import Finding, Violation, finding, no_ledger
from oracle.ledgers import PoisonLine


def partitions_move(facts: Facts) -> Finding:
    """Check that no partition of a source topic is stuck."""
    stuck = [(f"{topic}/{partition}", facts.reached[topic, partition]) for topic, partition in sorted(facts.stuck)]
    return finding(
        len(facts.reached),
        (
            Violation(
                where,
                f"{where} has been at position {at.position} for {facts.stuck_s:.0f} s, with records up to {at.last}",
            )
            for where, at in stuck
        ),
    )


def poison_is_set_aside(facts: Facts) -> Finding:
    """Check that each record of `poison.jsonl` is among the dead letters."""
    if facts.poison is None:
        return no_ledger("poison")
    origins = {letter.origin for letter in facts.dead_letters}
    return finding(
        len(facts.poison),
        (
            Violation(line.id, f"the record {line.id} ({where}, {line.where}) is not among the dead letters")
            for line in facts.poison
            if (where := Location(line.topic, line.partition, line.offset)) not in origins
            and line.at_ms >= facts.period.since_ms
            and facts.period.overdue(line.at_ms)
            and not any(_was_forwarded(line, letter) for letter in facts.dead_letters)
        ),
    )


def malformed_records_are_set_aside(facts: Facts) -> Finding:
    """Check that each malformed record that a task has passed is among the dead letters."""
    letters = {letter.origin for letter in facts.dead_letters}
    passed = [where for where in facts.malformed if _is_passed(where, facts)]
    return finding(
        len(passed),
        (
            Violation(str(where), f"{where} is no record of its topic, but is not among the dead letters")
            for where in passed
            if where not in letters
        ),
    )


def _was_forwarded(line: PoisonLine, letter: DeadLetter) -> bool:
    """Return whether the letter is a copy of this record, which a task had forwarded to the partition of its key."""
    origin = letter.origin
    if origin is None or origin.topic != line.topic or origin.partition == line.partition:
        return False
    return bool(line.id) and (line.id.encode() in letter.key or line.id.encode() in letter.value)


def _is_passed(where: Location, facts: Facts) -> bool:
    reached = facts.reached.get((where.topic, where.partition))
    return reached is not None and where.offset < reached.position
