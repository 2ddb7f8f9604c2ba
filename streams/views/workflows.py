"""Orders under way with the party that each waits for, and one order with its causes and remedies.

The list is a route apart from `/v1/orders`: providers may send that one, and waits, errors of parties and commands are
for operators alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from processors.causes import causes_of, emitter_of
from processors.events import OPERATOR
from processors.history import timer_name
from processors.order import AttentionItem, Order
from processors.waiting import (
    OpenCall,
    Upcoming,
    Waiting,
    WaitsOn,
    calls_needed,
    is_under_way,
    remedies,
    since_ms,
    upcoming,
    waiting_of,
)
from processors.workflow import JournalLine, Workflow
from streams.services import Services
from streams.tracing.ids import trace_hex
from streams.views.api_view import ApiView
from streams.views.calls import open_calls_of
from streams.views.orders import journal_entry, known_order, retired_order, shown_order
from streams.web.doorkeeper import sender_of
from streams.web.listing import LATEST_MS, Listing
from streams.web.numbers import whole_number
from streams.web.problems import Problem
from streams.web.requests import parse_id, respond
from topics.identity import OrderId
from topics.order_updates import OrderStatus
from topics.records import epoch_ms, instant

MAX_WAITED_S = 10**9
"""Largest `?waited_s=`, 31 years."""


class Workflows(ApiView):
    """Orders under way."""

    scans = True

    async def get(self, request: web.Request) -> web.Response:
        """List the orders that have not ended or need attention, page by page: those whose wait began last come first.

        `?sort=oldest` puts the longest waits first. `?waiting_on=` (`payment`, `restaurant`, `driver`, `timer` or
        `operator`), `?waited_s=` (at least so many seconds) and `?status=` (one or more, separated by commas) select
        orders. `operator` selects the orders that need a person: an attention that no event clears, or a call that was
        given up. A page reads every order of the tables.

        - 200: `{"workflows": [...], "next", "count"}`; `count` is the number on all pages. Each has `id`, `status`,
          `restaurant`, `waits_on` (list), `waits_for`, `since`, `waited_s`, `due` (time of its timer), `attention`
          (list of texts), `call` (the open call that it waits for, as in `/v1/calls`) and `command`, which helps it.
          `due`, `call` and `command` are null if there is none.
        """
        services, now_ms = self.services, self.services.now_ms()
        fits = _selection(services, request, now_ms)
        is_oldest_first = _sort(request) == "oldest"
        # the list puts the newest first, so the oldest has to look like the newest
        newest_by = (lambda row: LATEST_MS - since_ms(row)) if is_oldest_first else since_ms
        return await _listing(services, now_ms).answer(request, fits, newest_by)


class OrderWorkflow(ApiView):
    """One order with its causes and remedies."""

    async def get(self, request: web.Request, order: str) -> web.Response:
        """Return the state of an order, its wait, what will happen next and what an operator can do; and its journal.

        - 200: `order` (as at `/v1/orders/{order}`), `stage`, `region`, `trace_id`, `waiting` (`on`, `waits_for`,
          `since`; null if it waits for nobody), `attention` (a list: `waits_for`, `since`, `needs_operator`),
          `upcoming` (`at`, `happens`), `remedies` (`command`, `effect`), `timers` (`timer`, `due`), `calls` (as in
          `/v1/calls`), `payment`, `ticket` and `delivery` (null before they begin), and `journal`. A line of the
          journal is that of `/v1/orders/{order}/journal` with `cause`, the `seq` of the line from which it follows. A
          call has the `cause` too. A retired order has `retired_at`.
        - 404: there is no such order, or the history topic no longer has it.
        - 410: the order was erased.
        - 503: the history topic cannot be read.
        """
        parse_id(order, OrderId, "an order")
        if (answer := await self.services.forwarding.forward_to_owner(request, order)) is not None:
            return answer
        services, sender = self.services, sender_of(request)
        flow = known_order(services, order)
        if flow.history is not None:
            stored = await retired_order(services, request, order, flow.history)
            forgotten_ms = flow.history.retired_ms + round(services.parameters.history_s * 1000)
            shown = {
                "order": shown_order(services, stored.workflow, sender),
                **_rows(stored.workflow),
                **_wait(None, ()),
                **_plans([Upcoming(forgotten_ms, "its history is deleted")], [(timer_name(order), forgotten_ms)]),
                "remedies": [],
                **_causes(stored.journal, []),
                "retired_at": instant(flow.history.retired_ms),
            }
            return respond(200, shown)
        assert flow.order is not None
        rows = open_calls_of(services, flow)
        calls = [_open_call(row) for row in rows]
        timer = flow.order.timer
        shown = {
            "order": shown_order(services, flow, sender),
            **_rows(flow),
            **_wait(waiting_of(flow, {call.key for call in calls}), flow.order.attention),
            **_plans(upcoming(flow, calls, services.now_ms()), [(timer.name, timer.due_ms)] if timer else []),
            "remedies": [remedy._asdict() for remedy in remedies(flow, calls)],
        }
        # the journal comes last, because reading it takes turns with the tasks; it may have newer lines than the rows
        lines = [line async for _, line in services.tables.journal.pages(order, f"{order}/")]
        return respond(200, {**shown, **_causes(lines, rows)})


# -- one order -------------------------------------------------------------------------------------------------------


def _rows(flow: Workflow) -> dict[str, object]:
    """Return the rows of an order without its body and places."""
    order, payment, ticket, delivery = flow.order, flow.payment, flow.ticket, flow.delivery
    assert order is not None
    return {
        "stage": order.stage.value,
        "region": order.region,
        "trace_id": trace_hex(order.id),
        "payment": payment
        and {
            "status": payment.stage.value,
            "amount": payment.amount,
            "currency": payment.currency,
            "charge_id": payment.charge_id,
            "refunds": [
                {"charge_id": refund.charge_id, "amount": refund.amount, "done": refund.done}
                | {"currency": refund.currency}
                for refund in payment.refunds
            ],
        },
        "ticket": ticket and {"status": ticket.stage.value, "restaurant": ticket.restaurant, "reason": ticket.reason},
        "delivery": delivery
        and {
            "status": delivery.stage.value,
            "attempt": delivery.attempt,
            "region": delivery.region,
            "driver": delivery.driver,
        },
    }


def _wait(waiting: Waiting | None, attention: Sequence[AttentionItem]) -> dict[str, object]:
    return {
        "waiting": waiting and {"on": waiting.on, "waits_for": waiting.waits_for, "since": instant(waiting.since_ms)},
        "attention": [
            {
                "waits_for": item.waits_for,
                "since": instant(item.since_ms),
                "needs_operator": item.wait == OPERATOR,
            }
            for item in attention
        ],
    }


def _plans(coming: Sequence[Upcoming], timers: Sequence[tuple[str, int]]) -> dict[str, object]:
    return {
        "upcoming": [{"at": instant(next_.at_ms), "happens": next_.happens} for next_ in coming],
        "timers": [{"timer": name, "due": instant(due_ms)} for name, due_ms in timers],
    }


def _causes(lines: Sequence[JournalLine], calls: Sequence[dict[str, Any]]) -> dict[str, object]:
    """Return the journal and the open calls, each line and call with its cause."""
    causes = causes_of(lines)
    return {
        "calls": [{**call, "cause": emitter_of(lines, call["key"])} for call in calls],
        "journal": [{**journal_entry(line), "cause": causes.get(line.seq)} for line in lines],
    }


def _open_call(row: dict[str, Any]) -> OpenCall:
    return OpenCall(row["key"], row["attempts"], epoch_ms(row["next_attempt"]), row["held_back"])


# -- the list --------------------------------------------------------------------------------------------------------


def _listing(services: Services, now_ms: int) -> Listing[Order]:
    return Listing(
        services.engine,
        services.forwarding,
        services.tables.orders.name,
        "workflows",
        lambda key, value: services.tables.orders.decode(key.decode(), value),
        lambda _, row: _shown(services, row, now_ms),
    )


def _selection(services: Services, request: web.Request, now_ms: int) -> Callable[[Order], bool]:
    """Return the filter of a request. Raises a 422 problem for a wrong parameter."""
    on, statuses, waited_ms = _waiting_on(request), _statuses(request), _waited_ms(request)

    def fits(row: Order) -> bool:
        if not is_under_way(row) or (statuses and row.status not in statuses) or now_ms - since_ms(row) < waited_ms:
            return False
        return on is None or on in _waits_on(services, row)

    return fits


def _waits_on(services: Services, row: Order) -> tuple[WaitsOn, ...]:
    """Return the parties of an order. Only an order with attention may have a call that was given up."""
    flow = _current(services, row) if row.attention else Workflow(order=row)
    calls = {call["key"] for call in open_calls_of(services, flow)} if row.attention else ()
    waiting = waiting_of(flow, calls)
    return () if waiting is None else waiting.on


def _shown(services: Services, row: Order, now_ms: int) -> dict[str, object]:
    flow = _current(services, row)
    assert flow.order is not None
    calls = open_calls_of(services, flow)
    opened = [_open_call(call) for call in calls]
    waiting = waiting_of(flow, {call.key for call in opened})
    helping = remedies(flow, opened)
    needed = calls_needed(flow)
    return {
        "id": flow.order.id,
        "status": flow.order.status.value,
        "restaurant": flow.order.restaurant,
        "waits_on": waiting.on if waiting else (),
        "waits_for": waiting.waits_for if waiting else "",
        "since": instant(since_ms(flow.order)),
        "waited_s": max(0, now_ms - since_ms(flow.order)) // 1000,
        "due": instant(flow.order.timer.due_ms) if flow.order.timer else None,
        "attention": [item.waits_for for item in flow.order.attention],
        "call": next((call for call in calls if call["key"] in needed), None),
        "command": helping[0].command if helping else None,
    }


def _current(services: Services, row: Order) -> Workflow:
    """Return the rows of an order as they are now; ``row`` may be some milliseconds old."""
    flow = services.tables.committed_workflow_of(row.id)
    return flow if flow.order is not None else msgspec.structs.replace(flow, order=row)


def _waiting_on(request: web.Request) -> WaitsOn | None:
    text = request.query.get("waiting_on")
    try:
        return None if text is None else WaitsOn(text)
    except ValueError:
        raise Problem(422, "invalid", f"waiting_on={text}: it must be one of {', '.join(WaitsOn)}") from None


def _statuses(request: web.Request) -> frozenset[OrderStatus]:
    text = request.query.get("status")
    try:
        return frozenset() if text is None else frozenset(OrderStatus(name) for name in text.split(","))
    except ValueError:
        names = ", ".join(status.value for status in OrderStatus)
        raise Problem(422, "invalid", f"status={text}: it must be one or more of {names}") from None


def _waited_ms(request: web.Request) -> int:
    text = request.query.get("waited_s", "0")
    seconds = whole_number(text)
    if seconds is None or seconds > MAX_WAITED_S:
        raise Problem(422, "invalid", f"waited_s={text}: it must be a whole number from 0 to {MAX_WAITED_S}")
    return 1000 * seconds


def _sort(request: web.Request) -> str:
    text = request.query.get("sort", "newest")
    if text not in ("newest", "oldest"):
        raise Problem(422, "invalid", f"sort={text}: it must be newest or oldest")
    return text
