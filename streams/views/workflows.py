"""Orders under way with the party that each waits for, and one order with its causes and remedies.

The list is a route apart from `/v1/orders`: providers may send that one, and waits, errors of parties and commands are
for operators alone.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from processors.causes import causes_of, emitter_of
from processors.delivery import Delivery
from processors.events import OPERATOR
from processors.history import timer_name
from processors.order import Order
from processors.payment import Payment
from processors.waiting import (
    OpenCall,
    Upcoming,
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
from streams.views import calls
from streams.views.api_view import ApiView
from streams.views.calls import open_calls_of
from streams.views.orders import JournalEntry, OrderState, journal_entry, known_order, retired_order, shown_order
from streams.web.doorkeeper import sender_of
from streams.web.listing import LATEST_MS, PAGE_QUERY, Listing
from streams.web.numbers import whole_number
from streams.web.operation import operation
from streams.web.problems import Problem
from streams.web.requests import parse_id, respond
from topics.identity import OrderId
from topics.order_updates import OrderStatus
from topics.records import Instant, epoch_ms, instant

MAX_WAITED_S = 10**9
"""Largest `?waited_s=`, 31 years."""


class WaitingOrder(Struct, frozen=True, kw_only=True):
    """An order under way, with the party that it waits for."""

    id: OrderId
    status: OrderStatus
    restaurant: str
    waits_on: tuple[WaitsOn, ...]
    waits_for: str
    since: Instant
    waited_s: int
    due: Instant | None
    attention: list[str]
    call: calls.OpenCall | None
    command: str | None


class WorkflowPage(Struct, frozen=True, kw_only=True):
    """Page of the list of orders under way."""

    workflows: list[WaitingOrder]
    next: str | None
    count: int


class Wait(Struct, frozen=True):
    """The present wait of an order."""

    on: tuple[WaitsOn, ...]
    waits_for: str
    since: Instant


class Concern(Struct, frozen=True):
    """A wait that asks for attention."""

    waits_for: str
    since: Instant
    needs_operator: bool


class Plan(Struct, frozen=True):
    """A thing that will happen by itself."""

    at: Instant
    happens: str


class Help(Struct, frozen=True):
    """A command that helps an order."""

    command: str
    effect: str


class RunningTimer(Struct, frozen=True):
    """A timer of an order."""

    timer: str
    due: Instant


class RefundState(Struct, frozen=True):
    """A refund."""

    charge_id: str
    amount: int
    done: bool
    currency: str


class PaymentState(Struct, frozen=True):
    """The payment of an order."""

    status: str
    amount: int
    currency: str
    charge_id: str
    refunds: list[RefundState]


class TicketState(Struct, frozen=True):
    """The ticket of an order."""

    status: str
    restaurant: str
    reason: str


class DeliveryState(Struct, frozen=True):
    """The delivery of an order."""

    status: str
    attempt: int
    region: str
    driver: str | None


class CausedCall(calls.OpenCall, frozen=True, kw_only=True):
    """An open call, with the number of the line of the journal that asked for it."""

    cause: int | None


class CausedEntry(JournalEntry, frozen=True, kw_only=True):
    """A line of the journal, with the number of the line from which it follows."""

    cause: int | None


class WorkflowState(Struct, frozen=True, kw_only=True):
    """An order with its causes and remedies."""

    order: OrderState
    stage: str
    region: str
    trace_id: str
    waiting: Wait | None
    attention: list[Concern]
    upcoming: list[Plan]
    remedies: list[Help]
    timers: list[RunningTimer]
    calls: list[CausedCall]
    payment: PaymentState | None
    ticket: TicketState | None
    delivery: DeliveryState | None
    journal: list[CausedEntry]
    retired_at: Instant | UnsetType = UNSET


class Workflows(ApiView):
    """Orders under way."""

    scans = True

    @operation(
        "listWorkflows",
        {200: WorkflowPage},
        query={
            **PAGE_QUERY,
            "waiting_on": Annotated[WaitsOn, Meta(description="The party that the orders wait for.")],
            "waited_s": Annotated[int, Meta(ge=0, le=MAX_WAITED_S, description="Shortest wait, in seconds.")],
            "status": Annotated[str, Meta(description="Statuses of the orders, separated by commas.")],
            "sort": Annotated[Literal["newest", "oldest"], Meta(description="Order of the list, by default `newest`.")],
        },
    )
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

    @operation("explainOrder", {200: WorkflowState})
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
        services = self.services
        flow = known_order(services, order)
        if flow.history is not None:
            stored = await retired_order(services, request, order, flow.history)
            forgotten_ms = flow.history.retired_ms + round(services.parameters.history_s * 1000)
            planned = [Upcoming(forgotten_ms, "its history is deleted")]
            state = _state(services, request, stored.workflow, [], planned, [(timer_name(order), forgotten_ms)])
            shown = _with_journal(state, stored.journal)
            return respond(200, msgspec.structs.replace(shown, retired_at=instant(flow.history.retired_ms)))
        assert flow.order is not None
        open_calls = open_calls_of(services, flow)
        coming = upcoming(flow, [_open_call(call) for call in open_calls], services.now_ms())
        timer = flow.order.timer
        state = _state(services, request, flow, open_calls, coming, [(timer.name, timer.due_ms)] if timer else [])
        # the journal comes last, because reading it takes turns with the tasks; it may have newer lines than the rows
        lines = [line async for _, line in services.tables.journal.pages(order, f"{order}/")]
        return respond(200, _with_journal(state, lines))


# -- one order -------------------------------------------------------------------------------------------------------


def _state(
    services: Services,
    request: web.Request,
    flow: Workflow,
    open_calls: Sequence[calls.OpenCall],
    coming: Sequence[Upcoming],
    timers: Sequence[tuple[str, int]],
) -> WorkflowState:
    """Return an order without its journal. A retired order waits for nobody, and nothing helps it."""
    order, ticket = flow.order, flow.ticket
    assert order is not None
    opened = [_open_call(call) for call in open_calls]
    waiting = waiting_of(flow, {call.key for call in opened})
    return WorkflowState(
        order=shown_order(services, flow, sender_of(request)),
        stage=order.stage.value,
        region=order.region,
        trace_id=trace_hex(order.id),
        waiting=waiting and Wait(waiting.on, waiting.waits_for, instant(waiting.since_ms)),
        attention=[Concern(item.waits_for, instant(item.since_ms), item.wait == OPERATOR) for item in order.attention],
        upcoming=[Plan(instant(next_.at_ms), next_.happens) for next_ in coming],
        remedies=[Help(*remedy) for remedy in remedies(flow, opened)],
        timers=[RunningTimer(name, instant(due_ms)) for name, due_ms in timers],
        calls=[CausedCall(**msgspec.structs.asdict(call), cause=None) for call in open_calls],
        payment=_payment(flow.payment) if flow.payment else None,
        ticket=TicketState(ticket.stage.value, ticket.restaurant, ticket.reason) if ticket else None,
        delivery=_delivery(flow.delivery) if flow.delivery else None,
        journal=[],
    )


def _payment(payment: Payment) -> PaymentState:
    refunds = [RefundState(refund.charge_id, refund.amount, refund.done, refund.currency) for refund in payment.refunds]
    return PaymentState(payment.stage.value, payment.amount, payment.currency, payment.charge_id, refunds)


def _delivery(delivery: Delivery) -> DeliveryState:
    return DeliveryState(delivery.stage.value, delivery.attempt, delivery.region, delivery.driver)


def _with_journal(state: WorkflowState, lines: Sequence[JournalLine]) -> WorkflowState:
    """Add the journal, and the cause of each line and call."""
    causes = causes_of(lines)
    entries = ((line.seq, msgspec.structs.asdict(journal_entry(line))) for line in lines)
    return msgspec.structs.replace(
        state,
        calls=[msgspec.structs.replace(call, cause=emitter_of(lines, call.key)) for call in state.calls],
        journal=[CausedEntry(**entry, cause=causes.get(seq)) for seq, entry in entries],
    )


def _open_call(call: calls.OpenCall) -> OpenCall:
    return OpenCall(call.key, call.attempts, epoch_ms(call.next_attempt), call.held_back)


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
    keys = {call.key for call in open_calls_of(services, flow)} if row.attention else set()
    waiting = waiting_of(flow, keys)
    return () if waiting is None else waiting.on


def _shown(services: Services, row: Order, now_ms: int) -> WaitingOrder:
    flow = _current(services, row)
    assert flow.order is not None
    open_calls = open_calls_of(services, flow)
    opened = [_open_call(call) for call in open_calls]
    waiting = waiting_of(flow, {call.key for call in opened})
    helping = remedies(flow, opened)
    needed = calls_needed(flow)
    return WaitingOrder(
        id=flow.order.id,
        status=flow.order.status,
        restaurant=flow.order.restaurant,
        waits_on=waiting.on if waiting else (),
        waits_for=waiting.waits_for if waiting else "",
        since=instant(since_ms(flow.order)),
        waited_s=max(0, now_ms - since_ms(flow.order)) // 1000,
        due=instant(flow.order.timer.due_ms) if flow.order.timer else None,
        attention=[item.waits_for for item in flow.order.attention],
        call=next((call for call in open_calls if call.key in needed), None),
        command=helping[0].command if helping else None,
    )


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
