"""The points of sale of all the city's restaurants: they take tickets, cook, and say when the food stands ready.

    POST /restaurants/{restaurant}/prepare   Idempotency-Key, {order, restaurant, items, callback_url, ...}
        200 {status: accepted} | 409 {reason} | with --receive 202 {status: received}, decided later
    then they call {callback_url}/accepted or /rejected (after a 202) and {callback_url}/finished

The same key with the same request is the same ticket and answered the same; with another request it is 400. What
happens to a ticket is written down before anybody is told of it. After a crash, unfinished preparations go on until the
moment they would have been ready, and a callback that had no final answer is made again.
"""

import argparse
import asyncio
from datetime import timedelta
from hashlib import blake2b
from typing import Literal, NamedTuple, NoReturn

import msgspec
from aiohttp import web

from simulators.calling import Caller
from simulators.chance import falls_under, split_rule
from simulators.city import KITCHENS
from simulators.command import Pace, Teller, options, run, serve_options, share
from simulators.faults import HELD_BACK, Faults, fault_options
from simulators.ledger import Ledger, TicketEntry, now
from simulators.serving import (
    CallbackUrl,
    Problem,
    faults_routes,
    idempotency_key,
    read_body,
    respond,
    served,
    troubled,
)
from topics.identity import OrderId, PartyId
from topics.records import Reader

DECISION_S = 20.0
"""Until somebody in the kitchen has looked at a ticket that was received."""


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
    """Cook this."""

    order: OrderId
    restaurant: PartyId
    items: tuple[TicketItem, ...]
    callback_url: CallbackUrl
    display_number: str = ""
    note: str = ""

    def body_hash(self) -> str:
        """What is asked for, whatever the callback address."""
        asked = msgspec.json.encode(msgspec.structs.replace(self, callback_url=""))
        return blake2b(asked, digest_size=8).hexdigest()


class RejectRule(NamedTuple):
    """Which tickets are rejected: `never`, `always`, `share:P`, those of a `restaurant:ID` or with a `product:CODE`."""

    kind: str
    value: str

    @classmethod
    def read(cls, text: str) -> "RejectRule":
        """A rule as the command line gives it."""
        kind, value = split_rule(text, "never", "always", "share:P", "restaurant:ID", "product:CODE")
        if kind == "share":
            share(value)
        return cls(kind, value)

    def reason(self, asked: PrepareRequest, seed: str) -> str:
        """Why this ticket is rejected; empty if it is not."""
        if self.kind == "restaurant" and asked.restaurant == self.value:
            return "the restaurant is closed"
        if self.kind == "product" and any(item.pos_code == self.value for item in asked.items):
            return f"{self.value} is sold out"
        if self.kind == "always" or (self.kind == "share" and falls_under(float(self.value), seed, asked.order)):
            return "the kitchen is too busy"
        return ""


Verb = Literal["accepted", "rejected", "finished"]


class Ticket:
    """How far a ticket is: the first line of its life, its decision, its end, and what was told."""

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

    def __init__(self, arguments: argparse.Namespace, caller: Caller, tasks: asyncio.TaskGroup, teller: Teller) -> None:
        """`arguments` are the command's; the tickets in the ledger are known again."""
        self._seed: str = arguments.seed
        self._pace: Pace = arguments.speed
        self._rejected: RejectRule = arguments.reject
        self._receives: bool = arguments.receive
        self._faults = Faults("pos", arguments.seed, arguments.faults)
        self._caller, self._tasks, self._teller = caller, tasks, teller
        self._ledger = Ledger(arguments.ledger, TicketEntry)
        self._tickets: dict[str, Ticket] = {}
        """By key."""
        for entry in self._ledger.written_before():
            self._remember(entry)

    def routes(self) -> list[web.RouteDef]:
        """What they serve."""
        prepare = troubled(self.prepare, self._faults)
        return [web.post("/restaurants/{restaurant}/prepare", prepare), *faults_routes(self._faults)]

    def resume(self) -> None:
        """Go on with every ticket that the last process left unfinished."""
        for ticket in self._tickets.values():
            self._tasks.create_task(self._live(ticket))

    async def prepare(self, request: web.Request) -> web.Response:
        """Handle `POST /restaurants/{restaurant}/prepare`."""
        key, asked = idempotency_key(request), await read_body(request, _prepare)
        restaurant = request.match_info["restaurant"]
        if restaurant not in KITCHENS or asked.restaurant != restaurant:
            raise Problem(404, f"there is no restaurant {restaurant} here for a ticket of {asked.restaurant}")
        if (ticket := self._tickets.get(key)) is None:
            return self._answer(self._open(key, asked))
        if ticket.first.body_hash != asked.body_hash():
            self._refuse(key, asked)
        self._write(msgspec.structs.replace(ticket.first, at=now(), event="replay", callback_url=asked.callback_url))
        return self._answer(ticket)

    def _open(self, key: str, asked: PrepareRequest) -> Ticket:
        reason = self._rejected.reason(asked, self._seed)
        if not reason and self._faults.strikes("refuse", asked.order, asked.restaurant):
            reason = "the kitchen is too busy"
        entry = TicketEntry(
            event="received",
            order=asked.order,
            key=key,
            restaurant=asked.restaurant,
            display_number=asked.display_number,
            reason=reason,
            callback_url=asked.callback_url,
            body_hash=asked.body_hash(),
        )
        self._write(entry if self._receives else self._decided(entry))
        ticket = self._tickets[key]
        self._tasks.create_task(self._live(ticket))
        return ticket

    def _decided(self, entry: TicketEntry) -> TicketEntry:
        """The line that decides a ticket: rejected where there is a reason to, else accepted."""
        at = now()
        if entry.reason:
            return msgspec.structs.replace(entry, at=at, event="rejected")
        preparation = timedelta(seconds=self._pace.real(KITCHENS[entry.restaurant].preparation_s))
        return msgspec.structs.replace(entry, at=at, event="accepted", ready_at=at + preparation)

    def _refuse(self, key: str, asked: PrepareRequest) -> NoReturn:
        reason = f"the key {key} was used for another ticket"
        self._write(
            TicketEntry(event="refused", order=asked.order, key=key, restaurant=asked.restaurant, reason=reason)
        )
        raise Problem(400, reason)

    def _answer(self, ticket: Ticket) -> web.Response:
        if ticket.first.event == "received":
            return respond(202, {"status": "received"})
        if ticket.first.event == "rejected":
            return respond(409, {"reason": ticket.first.reason})
        return respond(200, {"status": "accepted"})

    async def _live(self, ticket: Ticket) -> None:
        """Take a ticket from wherever it is to its end."""
        received = ticket.first.event == "received"
        if ticket.decision is None:
            await self._pace.pass_time(DECISION_S)
            self._write(self._decided(ticket.first))
        assert ticket.decision is not None
        if received:
            await self._tell(ticket, "rejected" if ticket.decision.event == "rejected" else "accepted")
        if ticket.decision.ready_at is None:
            return
        if not ticket.finished:
            await asyncio.sleep((ticket.decision.ready_at - now()).total_seconds())
            self._write(msgspec.structs.replace(ticket.decision, at=now(), event="finished"))
        await self._tell(ticket, "finished")

    async def _tell(self, ticket: Ticket, verb: Verb) -> None:
        """Call back; what is held back does not hold up what happens next."""
        if verb in ticket.told:
            return
        key, restaurant = f"{ticket.first.order}/{verb}", ticket.first.restaurant
        copies = 2 if self._faults.strikes("doubled", key, restaurant) else 1
        fault = self._faults.one_of(HELD_BACK, key, restaurant)
        if fault:
            self._tasks.create_task(self._tell_at_last(ticket, verb, copies, fault))
        else:
            await self._call_back(ticket, verb, copies)

    async def _tell_at_last(self, ticket: Ticket, verb: Verb, copies: int, fault: str) -> None:
        await self._faults.hold_back(fault, self._pace, ticket.first.restaurant)
        await self._call_back(ticket, verb, copies)

    async def _call_back(self, ticket: Ticket, verb: Verb, copies: int) -> None:
        await asyncio.gather(*(self._call_back_once(ticket, verb) for _ in range(copies)))

    async def _call_back_once(self, ticket: Ticket, verb: Verb) -> None:
        first = ticket.first
        answer = await self._caller.insist(
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
        self._teller.event(f"{entry.order} at {entry.restaurant} {what}{reason}")

    def _remember(self, entry: TicketEntry) -> None:
        if entry.event == "refused":
            return
        if (ticket := self._tickets.get(entry.key)) is None:
            self._tickets[entry.key] = Ticket(entry)
        else:
            ticket.follow(entry)


async def serve(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    teller = Teller("pos", arguments.quiet)
    async with Caller(teller, arguments.seed) as caller, asyncio.TaskGroup() as tasks:
        points_of_sale = PointsOfSale(arguments, caller, tasks, teller)
        async with served(points_of_sale.routes(), arguments.host, arguments.port) as (address, failed):
            teller.notice(f"listening on {address}")
            points_of_sale.resume()
            await failed
    return 0


def main() -> None:
    """The command."""
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
    fault_options(parser, "pos")
    run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
