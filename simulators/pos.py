"""The points of sale of all the city's restaurants: they take tickets, cook, and report when the food is ready.

    POST /restaurants/{restaurant}/prepare   Idempotency-Key, {order, restaurant, items, callback_url, ...}
        200 {status: accepted} | 409 {status: rejected, reason} | with --receive 202 {status: received}, decided later
    then they call {callback_url}/accepted or /rejected (after a 202) and {callback_url}/finished

A key that is sent again with the same request refers to the same ticket and gets the same answer; with another request
it is answered 400. --strict compares the whole body, its callback address included, and answers 409 while the first
request with the key is under way; --strict ietf answers another body with 422. With --secrets FILE a ticket needs the
signature of its restaurant (401). The ledger has every event of a ticket before it is sent. After a crash, preparations
end at their original moments, and callbacks without a final answer are made again.
"""

import argparse
import asyncio
from datetime import timedelta
from hashlib import blake2b
from typing import Literal, NamedTuple, NoReturn

import msgspec
from aiohttp import web

from simulators.city import KITCHENS
from simulators.cli import Reporter, TimeScale, options, run, serve_options, share, strict_option
from simulators.faults import HELD_BACK, Faults, fault_options
from simulators.http_client import Caller
from simulators.http_server import (
    CallbackUrl,
    Problem,
    faults_routes,
    idempotency_key,
    one_at_a_time,
    read_body,
    respond,
    serve_party,
    with_faults,
)
from simulators.ledger import Ledger, TicketEntry, now
from simulators.proofs import secrets_option, signed
from simulators.seeding import is_drawn, split_rule
from topics.identity import OrderId, PartyId
from topics.party_secrets import PartySecrets
from topics.records import Reader

DECISION_S = 20.0
"""Simulated seconds from the receipt of a ticket to its decision."""


class TicketModifier(msgspec.Struct, frozen=True, kw_only=True):
    """Something added to an item."""

    name: str
    pos_code: str = ""


class TicketItem(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a ticket."""

    id: str
    name: str
    quantity: int
    pos_code: str = ""
    modifiers: tuple[TicketModifier, ...] = ()
    note: str = ""


class PrepareRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Prepare this ticket."""

    order: OrderId
    restaurant: PartyId
    items: tuple[TicketItem, ...]
    callback_url: CallbackUrl
    display_number: str = ""
    note: str = ""

    def body_hash(self, *, is_strict: bool = False) -> str:
        """Return a hash of the request, unless strict without its callback address."""
        asked = msgspec.json.encode(self if is_strict else msgspec.structs.replace(self, callback_url=""))
        return blake2b(asked, digest_size=8).hexdigest()


class RejectRule(NamedTuple):
    """A choice of tickets to reject: `never`, `always`, `share:P`, those of `restaurant:ID` or with `product:CODE`."""

    kind: str
    value: str

    @classmethod
    def read(cls, text: str) -> "RejectRule":
        """Parse a rule of the command line."""
        kind, value = split_rule(text, "never", "always", "share:P", "restaurant:ID", "product:CODE")
        if kind == "share":
            share(value)
        return cls(kind, value)

    def reason(self, asked: PrepareRequest, seed: str) -> str:
        """Return why this ticket is rejected; empty if it is accepted."""
        if self.kind == "restaurant" and asked.restaurant == self.value:
            return "the restaurant is closed"
        if self.kind == "product" and any(item.pos_code == self.value for item in asked.items):
            return f"{self.value} is sold out"
        if self.kind == "always" or (self.kind == "share" and is_drawn(float(self.value), seed, asked.order)):
            return "the kitchen is too busy"
        return ""


Verb = Literal["accepted", "rejected", "finished"]


class Ticket:
    """The state of a ticket: its first ledger line, its decision, its end, and the callbacks that were answered."""

    def __init__(self, first: TicketEntry) -> None:
        self.first = first
        self.decision: TicketEntry | None = None
        self.callback_url = first.callback_url
        self.finished = False
        self.told: set[str] = set()
        self.follow(first)

    def follow(self, entry: TicketEntry) -> None:
        """Apply a line of the ledger."""
        match entry.event:
            case "accepted" | "rejected":
                self.decision = entry
            case "finished":
                self.finished = True
            case "told":
                self.told.add(entry.told)
            case "replay":
                self.callback_url = entry.callback_url


_prepare: Reader[PrepareRequest] = Reader(PrepareRequest)


class PointsOfSale:
    """The tickets of all restaurants."""

    def __init__(
        self, arguments: argparse.Namespace, caller: Caller, tasks: asyncio.TaskGroup, reporter: Reporter
    ) -> None:
        """Restore the tickets from the ledger; ``arguments`` are those of the command."""
        self._seed: str = arguments.seed
        self._time_scale: TimeScale = arguments.speed
        self._rejected: RejectRule = arguments.reject
        self._receives: bool = arguments.receive
        self._strict: str = arguments.strict
        self._secrets: PartySecrets = arguments.secrets
        self._faults = Faults("pos", arguments.seed, arguments.faults)
        self._caller = caller
        self._tasks = tasks
        self._reporter = reporter
        self._ledger = Ledger(arguments.ledger, TicketEntry)
        self._tickets: dict[str, Ticket] = {}
        """Key -> its ticket."""
        for entry in self._ledger.written_before():
            self._remember(entry)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the points of sale."""
        prepare = one_at_a_time(with_faults(self.prepare, self._faults), is_strict=bool(self._strict))
        route = web.post("/restaurants/{restaurant}/prepare", signed(prepare, self._secrets))
        return [route, *faults_routes(self._faults)]

    def resume(self) -> None:
        """Continue every ticket that the last process left unfinished."""
        for ticket in self._tickets.values():
            self._tasks.create_task(self._process(ticket))

    async def prepare(self, request: web.Request) -> web.Response:
        """Handle `POST /restaurants/{restaurant}/prepare`."""
        key, asked = idempotency_key(request), await read_body(request, _prepare)
        restaurant = request.match_info["restaurant"]
        if restaurant not in KITCHENS or asked.restaurant != restaurant:
            raise Problem(404, f"there is no restaurant {restaurant} here for a ticket of {asked.restaurant}")
        if (ticket := self._tickets.get(key)) is None:
            return self._answer(self._open(key, asked))
        if ticket.first.body_hash != self._hash(asked):
            self._refuse(key, asked)
        self._write(msgspec.structs.replace(ticket.first, at=now(), event="replay", callback_url=asked.callback_url))
        return self._answer(ticket)

    def _open(self, key: str, asked: PrepareRequest) -> Ticket:
        reason = self._rejected.reason(asked, self._seed)
        if not reason and self._faults.applies("refuse", asked.order, asked.restaurant):
            reason = "the kitchen is too busy"
        entry = TicketEntry(
            event="received",
            order=asked.order,
            key=key,
            restaurant=asked.restaurant,
            display_number=asked.display_number,
            reason=reason,
            callback_url=asked.callback_url,
            body_hash=self._hash(asked),
        )
        self._write(entry if self._receives else self._decided(entry))
        ticket = self._tickets[key]
        self._tasks.create_task(self._process(ticket))
        return ticket

    def _hash(self, asked: PrepareRequest) -> str:
        return asked.body_hash(is_strict=bool(self._strict))

    def _decided(self, entry: TicketEntry) -> TicketEntry:
        """Return the ledger line that decides a ticket: rejected if it has a reason, otherwise accepted."""
        at = now()
        if entry.reason:
            return msgspec.structs.replace(entry, at=at, event="rejected")
        preparation = timedelta(seconds=self._time_scale.real(KITCHENS[entry.restaurant].preparation_s))
        return msgspec.structs.replace(entry, at=at, event="accepted", ready_at=at + preparation)

    def _refuse(self, key: str, asked: PrepareRequest) -> NoReturn:
        reason = f"the key {key} was used for another ticket"
        self._write(
            TicketEntry(event="refused", order=asked.order, key=key, restaurant=asked.restaurant, reason=reason)
        )
        raise Problem(422 if self._strict == "ietf" else 400, reason)

    def _answer(self, ticket: Ticket) -> web.Response:
        if ticket.first.event == "received":
            return respond(202, {"status": "received"})
        if ticket.first.event == "rejected":
            return respond(409, {"status": "rejected", "reason": ticket.first.reason})
        return respond(200, {"status": "accepted"})

    async def _process(self, ticket: Ticket) -> None:
        """Take a ticket from its present state to its end."""
        received = ticket.first.event == "received"
        if ticket.decision is None:
            await self._time_scale.pass_time(DECISION_S)
            self._write(self._decided(ticket.first))
        assert ticket.decision is not None
        if received:
            await self._notify(ticket, "rejected" if ticket.decision.event == "rejected" else "accepted")
        if ticket.decision.ready_at is None:
            return
        if not ticket.finished:
            await asyncio.sleep((ticket.decision.ready_at - now()).total_seconds())
            self._write(msgspec.structs.replace(ticket.decision, at=now(), event="finished"))
        await self._notify(ticket, "finished")

    async def _notify(self, ticket: Ticket, verb: Verb) -> None:
        """Call back; a callback that a fault delays does not delay the next step."""
        if verb in ticket.told:
            return
        key, restaurant = f"{ticket.first.order}/{verb}", ticket.first.restaurant
        copies = 2 if self._faults.applies("doubled", key, restaurant) else 1
        fault = self._faults.one_of(HELD_BACK, key, restaurant)
        if fault:
            self._tasks.create_task(self._notify_late(ticket, verb, copies, fault))
        else:
            await self._call_back(ticket, verb, copies)

    async def _notify_late(self, ticket: Ticket, verb: Verb, copies: int, fault: str) -> None:
        await self._faults.hold_back(fault, self._time_scale, ticket.first.restaurant)
        await self._call_back(ticket, verb, copies)

    async def _call_back(self, ticket: Ticket, verb: Verb, copies: int) -> None:
        await asyncio.gather(*(self._call_back_once(ticket, verb) for _ in range(copies)))

    async def _call_back_once(self, ticket: Ticket, verb: Verb) -> None:
        first = ticket.first
        answer = await self._caller.request_until_final(
            "POST",
            lambda: f"{ticket.callback_url}/{verb}",
            {"reason": first.reason} if verb == "rejected" else {},
            f"{first.order}/{verb}",
        )
        self._write(msgspec.structs.replace(first, at=now(), event="told", told=verb, status=answer.status))

    def _write(self, entry: TicketEntry) -> None:
        self._ledger.append(entry)
        self._remember(entry)
        what = f"told {entry.told}, answered {entry.status}" if entry.event == "told" else entry.event
        reason = f": {entry.reason}" if entry.reason else ""
        self._reporter.event(f"{entry.order} at {entry.restaurant} {what}{reason}")

    def _remember(self, entry: TicketEntry) -> None:
        if entry.event == "refused":
            return
        if (ticket := self._tickets.get(entry.key)) is None:
            self._tickets[entry.key] = Ticket(entry)
        else:
            ticket.follow(entry)


def main() -> None:
    """Run `python -m simulators.pos`."""
    parser = options("pos", "The points of sale of all the city's restaurants.", "pos.jsonl")
    serve_options(parser, 5050)
    parser.add_argument(
        "--reject",
        type=RejectRule.read,
        default="never",
        metavar="RULE",
        help="never; always; share:P (that share of the tickets); restaurant:ID; product:CODE",
    )
    parser.add_argument("--receive", action="store_true", help="answer 202 and call back with the decision")
    strict_option(parser)
    secrets_option(parser)
    fault_options(parser, "pos")
    run(serve_party("pos", parser.parse_args(), PointsOfSale))


if __name__ == "__main__":
    main()
