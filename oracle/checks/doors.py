"""Promise 11: nobody reads or changes what is not theirs.

An intruder with keys of parties that own nothing asks for the things of others, and somebody with every right looks at
them without asking to see personal data. `intrusions.jsonl` has the answers.
"""

from collections.abc import Iterator

from oracle.facts import Facts
from oracle.findings import Finding, Violation, finding, no_ledger
from oracle.ledgers import IntrusionLine

REFUSALS = frozenset({401, 403, 404, 421, 429, 503})
"""Statuses that refuse a request and tell nothing about the thing. 0 stands for a request without an answer."""


def intruders_are_refused(facts: Facts) -> Finding:
    """Check that no intruder got another answer than a refusal, and that no answer had what must be hidden in it."""
    if facts.intrusions is None:
        return no_ledger("intrusions")
    return finding(len(facts.intrusions), (each for line in facts.intrusions for each in _wrong(line)))


def _wrong(line: IntrusionLine) -> Iterator[Violation]:
    request = f"{line.method} {line.path} with {line.who}"
    if not line.allowed and line.status not in (REFUSALS | {0}):
        yield Violation(line.order, f"{request} was answered {line.status}, and not refused ({line.where})")
    if line.shown:
        yield Violation(line.order, f"{request} shows {line.shown!r}, which is hidden from it ({line.where})")
