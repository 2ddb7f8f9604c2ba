"""Promise 10: a worker that was replaced does nothing any more.

By the producers' ids and epochs of the committed batches, see `oracle.writers`. That calls which such a worker made had
no effect is seen in the ledgers, by the promises 2 and 7.
"""

from oracle.facts import Facts
from oracle.findings import Finding, Violation, found


def the_replaced_write_nothing(facts: Facts) -> Finding:
    """Every batch of a transaction."""
    return found(
        facts.written,
        (
            Violation(
                str(each.where),
                f"{each.where} was written by producer {each.producer} in epoch {each.epoch}, after producer "
                f"{each.by_producer} in epoch {each.by_epoch} ({each.by_where})",
            )
            for each in facts.overtaken
        ),
    )
