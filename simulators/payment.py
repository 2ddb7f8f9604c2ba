"""A payment provider: charges, declines and gives back, each request once, however often it is sent.

    POST /v1/charges   Idempotency-Key, {order, amount, currency, callback_url}
                       200 {charge_id, amount, currency} | 402 {reason} | with --callback 202 {}, then a callback
    POST /v1/refunds   Idempotency-Key, {order, charge_id, amount, currency, callback_url}
                       200 {refund_id, charge_id} | with --callback 202 {}, then a callback

The same key with the same request is the same answer and nothing more; with another request it is 422. Without a key it
is 400, or with --keyless done each time, as many a provider does it. A callback is a
`Charged`, `Declined` or `Refunded` record posted to `callback_url` until there is a final answer to it; where the
request is sent again the callback is, too. What was done is written down before it is said. As long as a fault of
callbacks is switched on, whatever is asked is answered by one.
"""

import argparse
import asyncio
from hashlib import blake2b
from typing import NamedTuple, NoReturn

import msgspec
from aiohttp import web

from simulators.calling import Caller
from simulators.chance import falls_under, split_rule
from simulators.command import Pace, Teller, options, run, serve_options, share
from simulators.faults import CALLBACKS, HELD_BACK, Faults, fault_options
from simulators.ledger import Ledger, PaymentEntry, now
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
from topics.identity import OrderId
from topics.orders import Amount, Currency
from topics.payments import Charged, ChargeId, Declined, PaymentRecord, Refunded
from topics.records import Reader, write

PROCESSING_S = 0.5
"""What a bank takes."""


class ChargeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Take this amount, in minor units, for this order."""

    order: OrderId
    amount: Amount
    currency: Currency
    callback_url: CallbackUrl


class RefundRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Give this charge back, whole."""

    order: OrderId
    charge_id: ChargeId
    amount: Amount
    currency: Currency
    callback_url: CallbackUrl


class DeclineRule(NamedTuple):
    """Which charges are declined: `never`, `always`, `share:P` of the orders, or amounts `ending:DIGITS`."""

    kind: str
    value: str

    @classmethod
    def read(cls, text: str) -> "DeclineRule":
        """A rule as the command line gives it."""
        kind, value = split_rule(text, "never", "always", "share:P", "ending:DIGITS")
        if kind == "share":
            share(value)
        return cls(kind, value)

    def reason(self, asked: "ChargeRequest", seed: str) -> str:
        """Why this charge is declined; empty if it is not."""
        if self.kind == "ending" and str(asked.amount).endswith(self.value):
            return f"amounts that end in {self.value} are not charged"
        if self.kind == "always" or (self.kind == "share" and falls_under(float(self.value), seed, asked.order)):
            return "the card was declined"
        return ""


_charges: Reader[ChargeRequest] = Reader(ChargeRequest)
_refunds: Reader[RefundRequest] = Reader(RefundRequest)


class PaymentProvider:
    """What it did for each key, and the callbacks it owes."""

    def __init__(self, arguments: argparse.Namespace, caller: Caller, tasks: asyncio.TaskGroup, teller: Teller) -> None:
        """`arguments` are the command's; what the ledger says was done before is known again."""
        self._seed: str = arguments.seed
        self._pace: Pace = arguments.speed
        self._declined: DeclineRule = arguments.decline
        self._calls_back: bool = arguments.callback
        self._takes_keyless: bool = arguments.keyless
        self._faults = Faults("payment", arguments.seed, arguments.faults)
        self._caller, self._tasks, self._teller = caller, tasks, teller
        self._ledger = Ledger(arguments.ledger, PaymentEntry)
        self._done: dict[str, PaymentEntry] = {}
        """Key -> what was done for it, with the newest callback address."""
        self._charged: dict[str, PaymentEntry] = {}
        """Charge id -> the charge."""
        self._given_back: set[str] = set()
        """Charge ids."""
        self._owed: set[str] = set()
        """Keys whose callback had no final answer yet."""
        self._calling: set[str] = set()
        """Keys whose callback is being made."""
        for entry in self._ledger.written_before():
            self._remember(entry)

    def routes(self) -> list[web.RouteDef]:
        """What it serves."""
        return [
            web.post("/v1/charges", troubled(self.charge, self._faults)),
            web.post("/v1/refunds", troubled(self.refund, self._faults)),
            *faults_routes(self._faults),
        ]

    def resume(self) -> None:
        """Call back whoever was left waiting when the last process ended."""
        for key in self._owed:
            self._start_calling_back(key)

    async def charge(self, request: web.Request) -> web.Response:
        """Handle `POST /v1/charges`."""
        key, asked = self._key(request), await read_body(request, _charges)
        if (done := self._done.get(key)) is None:
            reason = self._reason_to_decline(asked)
            done = self._do(
                PaymentEntry(
                    key=key,
                    kind="charge",
                    order=asked.order,
                    outcome="declined" if reason else "charged",
                    charge_id="" if reason else _id("ch", key),
                    amount=asked.amount,
                    currency=asked.currency,
                    reason=reason,
                    callback_url=self._callback_url(asked),
                )
            )
        else:
            same = done.kind == "charge" and _money(done) == _money(asked)
            done = self._again(done, same, asked)
        return await self._answer(done)

    async def refund(self, request: web.Request) -> web.Response:
        """Handle `POST /v1/refunds`."""
        key, asked = self._key(request), await read_body(request, _refunds)
        if (done := self._done.get(key)) is None:
            self._check_refund(key, asked)
            done = self._do(
                PaymentEntry(
                    key=key,
                    kind="refund",
                    order=asked.order,
                    outcome="refunded",
                    charge_id=asked.charge_id,
                    refund_id=_id("re", key),
                    amount=asked.amount,
                    currency=asked.currency,
                    callback_url=self._callback_url(asked),
                )
            )
        else:
            same = done.kind == "refund" and _money(done) == _money(asked) and done.charge_id == asked.charge_id
            done = self._again(done, same, asked)
        return await self._answer(done)

    def _key(self, request: web.Request) -> str:
        """The request's key, or one of its own."""
        given = request.headers.get("Idempotency-Key")
        return idempotency_key(request) if given or not self._takes_keyless else f"keyless-{len(self._done) + 1}"

    def _reason_to_decline(self, asked: ChargeRequest) -> str:
        """Empty: it is charged."""
        if reason := self._declined.reason(asked, self._seed):
            return reason
        return "the card was declined" if self._faults.strikes("decline", asked.order) else ""

    def _callback_url(self, asked: ChargeRequest | RefundRequest) -> str:
        """Where the outcome is told; empty: in the answer itself."""
        calls_back = self._calls_back or any(kind in self._faults.rates for kind in CALLBACKS)
        return asked.callback_url if calls_back else ""

    def _check_refund(self, key: str, asked: RefundRequest) -> None:
        charge = self._charged.get(asked.charge_id)
        if charge is None or _money(charge) != _money(asked):
            self._refuse(key, asked, 422, f"there is no charge {asked.charge_id} of that order and amount")
        if asked.charge_id in self._given_back:
            self._refuse(key, asked, 409, f"charge {asked.charge_id} was given back under another key")

    def _do(self, entry: PaymentEntry) -> PaymentEntry:
        self._ledger.append(entry)
        self._remember(entry)
        self._say(entry)
        return entry

    def _again(self, done: PaymentEntry, same: bool, asked: ChargeRequest | RefundRequest) -> PaymentEntry:
        if not same:
            self._refuse(done.key, asked, 422, f"the key {done.key} was used for another request")
        address = asked.callback_url if done.callback_url else ""
        return self._do(msgspec.structs.replace(done, at=now(), replay=True, callback_url=address))

    def _refuse(self, key: str, asked: ChargeRequest | RefundRequest, status: int, reason: str) -> NoReturn:
        entry = PaymentEntry(
            key=key,
            kind="charge" if isinstance(asked, ChargeRequest) else "refund",
            order=asked.order,
            outcome="refused",
            amount=asked.amount,
            currency=asked.currency,
            reason=reason,
            status=status,
        )
        self._ledger.append(entry)
        self._say(entry)
        raise Problem(status, reason)

    def _remember(self, entry: PaymentEntry) -> None:
        if entry.outcome == "refused":
            return
        if entry.kind == "callback":
            self._owed.discard(entry.key)
            return
        self._done[entry.key] = entry
        if entry.outcome == "charged":
            self._charged[entry.charge_id] = entry
        if entry.outcome == "refunded":
            self._given_back.add(entry.charge_id)
        if entry.callback_url:
            self._owed.add(entry.key)

    async def _answer(self, done: PaymentEntry) -> web.Response:
        if done.callback_url:
            self._start_calling_back(done.key)
            return respond(202, {})
        await self._pace.pass_time(PROCESSING_S)
        if done.outcome == "declined":
            return respond(402, {"reason": done.reason})
        if done.outcome == "refunded":
            return respond(200, {"refund_id": done.refund_id, "charge_id": done.charge_id})
        return respond(200, {"charge_id": done.charge_id, "amount": done.amount, "currency": done.currency})

    def _start_calling_back(self, key: str) -> None:
        if key not in self._calling:
            self._calling.add(key)
            self._tasks.create_task(self._call_back(key))

    async def _call_back(self, key: str) -> None:
        await self._pace.pass_time(PROCESSING_S)
        if fault := self._faults.one_of(HELD_BACK, key):
            await self._faults.hold_back(fault, self._pace)
        copies = 2 if self._faults.strikes("doubled", key) else 1
        await asyncio.gather(*(self._tell(key) for _ in range(copies)))
        self._calling.discard(key)

    async def _tell(self, key: str) -> None:
        done = self._done[key]
        record = msgspec.Raw(write(_record(done)))
        answer = await self._caller.insist("POST", lambda: self._done[key].callback_url, record, key)
        self._do(PaymentEntry(key=key, kind="callback", order=done.order, outcome="answered", status=answer.status))

    def _say(self, entry: PaymentEntry) -> None:
        what = {"callback": f"callback answered {entry.status}"}.get(entry.kind, f"{entry.kind} {entry.outcome}")
        money = f" {entry.currency} {entry.amount / 100:.2f}" if entry.amount else ""
        again = " (again)" if entry.replay else ""
        self._teller.event(f"{entry.order} {what}{money}{again}{': ' + entry.reason if entry.reason else ''}")


def _money(of: PaymentEntry | ChargeRequest | RefundRequest) -> tuple[str, int, str]:
    return of.order, of.amount, of.currency


def _record(done: PaymentEntry) -> PaymentRecord:
    if done.outcome == "declined":
        return Declined(order=done.order, reason=done.reason, at=done.at)
    if done.outcome == "refunded":
        return Refunded(order=done.order, charge_id=done.charge_id, refund_id=done.refund_id, at=done.at)
    return Charged(order=done.order, charge_id=done.charge_id, amount=done.amount, currency=done.currency, at=done.at)


def _id(prefix: str, key: str) -> str:
    return f"{prefix}-{blake2b(key.encode(), digest_size=12).hexdigest()}"


async def serve(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    teller = Teller("payment", arguments.quiet)
    async with Caller(teller, arguments.seed) as caller, asyncio.TaskGroup() as tasks:
        provider = PaymentProvider(arguments, caller, tasks, teller)
        async with served(provider.routes(), arguments.host, arguments.port) as (address, failed):
            teller.notice(f"listening on {address}")
            provider.resume()
            await failed
    return 0


def main() -> None:
    """The command."""
    parser = options("payment", "A payment provider.", "payment.jsonl")
    serve_options(parser, 5060)
    parser.add_argument(
        "--decline",
        type=DeclineRule.read,
        default="never",
        metavar="RULE",
        help="never; always; share:P (that share of the orders); ending:DIGITS (amounts in minor units that end so)",
    )
    parser.add_argument("--callback", action="store_true", help="answer 202 and call back with the outcome")
    parser.add_argument("--keyless", action="store_true", help="do a request without an Idempotency-Key, each time")
    fault_options(parser, "payment")
    run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
