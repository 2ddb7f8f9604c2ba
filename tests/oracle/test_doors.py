"""Promise 11: the answers to intruders."""

import pytest

from oracle.checks.doors import intruders_are_refused
from oracle.facts import Facts, Period
from oracle.ledgers import IntrusionLine
from topics.records import instant


def line(**changes: object) -> IntrusionLine:
    made = IntrusionLine(
        at=instant(0), order="shop:1", who="no key", method="GET", path="/v1/orders/shop:1", status=401
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def judged(*lines: IntrusionLine) -> list[str]:
    facts = Facts(Period(now_ms=0))
    facts.intrusions = list(lines)
    found = intruders_are_refused(facts)
    assert found.checked == len(lines)
    return [violation.sentence for violation in found.violations]


@pytest.mark.parametrize("status", [0, 401, 403, 404, 421, 429, 503])
def test_a_refusal_is_right(status: int) -> None:
    assert not judged(line(status=status))


@pytest.mark.parametrize("status", [200, 202, 204, 400, 409, 415, 422, 500])
def test_any_other_answer_to_an_intruder_is_wrong(status: int) -> None:
    (sentence,) = judged(line(status=status), line())
    assert f"GET /v1/orders/shop:1 with no key was answered {status}, and not refused" in sentence
    assert not judged(line(status=status, allowed=True))


def test_an_answer_must_hide_what_is_hidden() -> None:
    (sentence,) = judged(line(status=200, allowed=True, shown="Asha"))
    assert "shows 'Asha'" in sentence


def test_without_the_ledger_nothing_is_judged() -> None:
    found = intruders_are_refused(Facts(Period(now_ms=0)))
    assert (found.checked, found.violations) == (0, [])
    assert "intrusions" in found.unjudged
