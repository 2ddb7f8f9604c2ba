"""Promise 9: no record stops a partition; one that cannot be applied becomes a dead letter, and the others go on.

How far a task is, is a row of its table `positions`, whose changelog is a committed topic. A partition that holds
something beyond that and has not moved while it was looked at is stopped. What is known not to be applicable
(`poison.jsonl`, and every record passed by that is none of its topic's) has to lie with the dead letters, which name
where they came from.
"""

from oracle.facts import Facts, Letter, Where
from oracle.findings import Finding, Violation, found, no_ledger
from oracle.ledgers import PoisonLine


def partitions_move(facts: Facts) -> Finding:
    """Every partition of every source topic."""
    stuck = [(f"{topic}/{partition}", facts.reached[topic, partition]) for topic, partition in sorted(facts.stuck)]
    return found(
        len(facts.reached),
        (
            Violation(
                where,
                f"{where} stands at {at.position} for {facts.stuck_s:.0f} s, and holds records up to {at.last}",
            )
            for where, at in stuck
        ),
    )


def poison_is_set_aside(facts: Facts) -> Finding:
    """Every record that was put there to do harm."""
    if facts.poison is None:
        return no_ledger("poison")
    origins = {letter.origin for letter in facts.letters}
    return found(
        len(facts.poison),
        (
            Violation(line.id, f"the record {line.id} ({where}, {line.where}) is not among the dead letters")
            for line in facts.poison
            if (where := Where(line.topic, line.partition, line.offset)) not in origins
            and line.at_ms >= facts.period.since_ms
            and facts.period.overdue(line.at_ms)
            and not any(_was_forwarded(line, letter) for letter in facts.letters)
        ),
    )


def what_is_none_is_set_aside(facts: Facts) -> Finding:
    """Every record of a source topic that is none of its records, and was passed by."""
    letters = {letter.origin for letter in facts.letters}
    passed = [where for where in facts.malformed if _is_passed(where, facts)]
    return found(
        len(passed),
        (
            Violation(str(where), f"{where} holds nothing that could be applied, and is not among the dead letters")
            for where in passed
            if where not in letters
        ),
    )


def _was_forwarded(line: PoisonLine, letter: Letter) -> bool:
    """Whether a letter is that record, which had been sent on to the partition of its key before it was set aside."""
    origin = letter.origin
    if origin is None or origin.topic != line.topic or origin.partition == line.partition:
        return False
    return bool(line.id) and (line.id.encode() in letter.key or line.id.encode() in letter.value)


def _is_passed(where: Where, facts: Facts) -> bool:
    reached = facts.reached.get((where.topic, where.partition))
    return reached is not None and where.offset < reached.position
