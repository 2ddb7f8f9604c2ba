"""Meaning of the answers to calls."""

from typing import Any

import pytest

from processors.call_kinds import CallKind
from processors.call_results import Verdict, to_event, unclear, verdict_on
from processors.events import CallAnswered, ChargeFailed, PrepareFailed, RefundFailed, TicketReceived
from tests.processors.cases import ORDER
from topics.payments import Charged, Declined, Refunded
from topics.pos import TicketAccepted, TicketRejected

KEYS: dict[Any, str] = {"charge": f"{ORDER}/charge", "refund": f"{ORDER}/refund/c1", "prepare": f"{ORDER}/prepare"}
CHARGE = '{"charge_id": "c1", "amount": 630, "currency": "INR", "more": true}'
NO_STATUS = "/status: it must be accepted, rejected, received or duplicate"


@pytest.mark.parametrize(
    ("kind", "status", "body", "means"),
    [
        ("charge", 200, CHARGE, Charged(order=ORDER, charge_id="c1", amount=630, currency="INR")),
        ("charge", 200, "{}", ChargeFailed("answered 200 (/charge_id: the field `charge_id` is missing)")),
        ("charge", 200, "fine!", ChargeFailed),
        ("charge", 200, '{"charge_id": "c 1", "amount": 630, "currency": "INR"}', ChargeFailed),
        ("charge", 402, '{"reason": "no funds"}', Declined(order=ORDER, reason="no funds")),
        ("charge", 402, "", Declined(order=ORDER)),
        ("charge", 202, "{}", None),
        ("charge", 400, '{"detail": "which currency?"}', ChargeFailed("answered 400 (which currency?)")),
        ("charge", 422, "<html>", ChargeFailed("answered 422")),
        ("charge", 201, CHARGE, Charged(order=ORDER, charge_id="c1", amount=630, currency="INR")),
        ("charge", 409, '{"detail": "outstanding"}', None),
        ("charge", 0, "ValueError", ChargeFailed("the request fails in the worker (ValueError)")),
        ("charge", 204, "", ChargeFailed("answered 204")),
        ("refund", 200, '{"refund_id": "r1", "charge_id": "c1"}', Refunded(order=ORDER, charge_id="c1")),
        ("refund", 202, "", None),
        ("refund", 409, "", None),
        ("refund", 201, "{}", Refunded(order=ORDER, charge_id="c1")),
        ("refund", 204, "", Refunded(order=ORDER, charge_id="c1")),
        ("refund", 422, "", RefundFailed("c1", "answered 422")),
        ("refund", 402, '{"reason": "no"}', RefundFailed("c1", "answered 402 (no)")),
        ("refund", 404, "", RefundFailed("c1", "answered 404")),
        ("prepare", 200, '{"status": "accepted"}', TicketAccepted(order=ORDER)),
        ("prepare", 200, '{"status": "ACCEPTED"}', TicketAccepted(order=ORDER)),
        ("prepare", 201, '{"status": "accepted"}', TicketAccepted(order=ORDER)),
        ("prepare", 200, '{"status": "received"}', TicketReceived()),
        ("prepare", 200, " ", TicketReceived()),
        ("prepare", 201, "", TicketReceived()),
        ("prepare", 204, "", TicketReceived()),
        ("prepare", 202, '{"status": "accepted"}', TicketAccepted(order=ORDER)),
        ("prepare", 200, "<html>", PrepareFailed(f"answered 200 ({NO_STATUS})")),
        ("prepare", 201, '{"id": 7}', PrepareFailed(f"answered 201 ({NO_STATUS})")),
        ("prepare", 200, '{"status": "rejected", "reason": "closed"}', TicketRejected(order=ORDER, reason="closed")),
        ("prepare", 409, '{"status": "DUPLICATE"}', TicketReceived()),
        ("prepare", 409, '{"status": "accepted"}', TicketAccepted(order=ORDER)),
        ("prepare", 422, '{"status": "accepted"}', TicketAccepted(order=ORDER)),
        ("prepare", 409, '{"status": 409, "detail": "outstanding"}', None),
        ("prepare", 409, '{"reason": "closed"}', None),
        ("prepare", 422, '{"detail": "another body"}', PrepareFailed("answered 422 (another body)")),
        ("prepare", 404, '{"status": "rejected"}', PrepareFailed("answered 404")),
        ("prepare", 0, "InvalidURL", PrepareFailed("the request fails in the worker (InvalidURL)")),
        ("prepare", 202, '{"status": "received"}', TicketReceived()),
        (
            "prepare",
            422,
            '{"status": "rejected", "detail": "no thali"}',
            TicketRejected(order=ORDER, reason="no thali"),
        ),
        ("prepare", 404, '{"reason": ["odd"]}', PrepareFailed("answered 404")),
        ("prepare", 200, '{"status": "accepted", "reason": null}', TicketAccepted(order=ORDER)),
        (
            "prepare",
            409,
            '{"status": "rejected", "reason": "closed", "detail": {"until": "18:00"}}',
            TicketRejected(order=ORDER, reason="closed"),
        ),
        ("prepare", 200, '{"status": ["accepted"]}', PrepareFailed(f"answered 200 ({NO_STATUS})")),
        ("charge", 402, '{"status": null, "reason": "no funds"}', Declined(order=ORDER, reason="no funds")),
    ],
)
def test_answer_becomes_event_or_record(kind: Any, status: int, body: str, means: Any) -> None:
    result = to_event(CallAnswered(KEYS[kind], kind, status, body))
    assert type(result) is means if isinstance(means, type) else result == means
    if isinstance(result, ChargeFailed | RefundFailed | PrepareFailed):
        assert unclear(CallAnswered(KEYS[kind], kind, status, body)) == result.reason, "the row of the call has it too"


def test_long_reason_is_cut_to_the_field_s_limit() -> None:
    result = to_event(CallAnswered(KEYS["charge"], CallKind.CHARGE, 402, '{"reason": "' + "x" * 9999 + '"}'))
    assert isinstance(result, Declined)
    assert len(result.reason) == 1000


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("body", ["", "<html>", "{}", '{"status": 409}', '{"detail": "the first is under way"}'])
def test_no_client_error_without_the_party_s_word_ends_a_call(kind: Any, body: str) -> None:
    """Another layer may have answered, for example one that compares the bodies under a key."""
    for status in range(400, 500):
        verdict = verdict_on(CallAnswered(KEYS[kind], kind, status, body))
        assert (verdict is Verdict.FINAL) == (kind == "charge" and status == 402), status


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize(
    "body", ["", '{"status": "rejected", "reason": "unsigned"}', '{"reason": "the card was declined"}', CHARGE]
)
def test_refused_credentials_decide_nothing(status: int, kind: Any, body: str) -> None:
    """A secret is wrong, not the order: a person is asked, and the call goes on."""
    answer = CallAnswered(KEYS[kind], kind, status, body)
    assert verdict_on(answer) is Verdict.UNCLEAR
    assert isinstance(to_event(answer), ChargeFailed | RefundFailed | PrepareFailed)
