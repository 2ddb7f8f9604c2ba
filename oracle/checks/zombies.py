"""Promise 10: a replaced worker has no effect any more.

The check uses the producers' ids and epochs in the committed batches, see `oracle.writers`. The checks of promises 2
and 7 find effects of a replaced worker's calls in the ledgers.
"""

from oracle.facts import Facts
from oracle.findings import Finding, Violation, finding


def replaced_producers_write_nothing(facts: Facts) -> Finding:
    """Check the producer of each committed batch of a transaction."""
    return finding(
        facts.written,
        (
            Violation(
                str(each.where),
                f"{each.where} was written by producer {each.producer} in epoch {each.epoch}, after producer "
                f"{each.by_producer} in epoch {each.by_epoch} ({each.by_where})",
            )
            for each in facts.stale_writes
        ),
    )
