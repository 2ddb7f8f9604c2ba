"""A payment provider: it charges, declines and refunds, and performs a repeated request once.

    POST /v1/charges   Idempotency-Key, {order, amount, currency, callback_url}
                       200 {charge_id, amount, currency} | 402 {reason} | with --callback first 202 {}
    POST /v1/refunds   Idempotency-Key, {order, charge_id, amount, currency, callback_url}
                       200 {refund_id, charge_id} | with --callback first 202 {}

A key that is sent again with the same request returns the result and has no other effect. A key with another request
is answered 422, and a request without a key 400; with --keyless the provider performs it each time, as many providers
do. After a 202 the provider takes its time; then a repeated request is answered with the result, and a callback reports
it: a `Charged`, `Declined` or `Refunded` record that is posted to `callback_url` until its answer is final. The ledger
has every outcome before it is sent. While a fault of callbacks is switched on, every request is answered 202 first.

--strict compares the whole body under a key, and answers 409 while the first request is under way:
    ietf      422 for another body, as draft-ietf-httpapi-idempotency-key-header has it
    stripe    400 for another body, and for an amount below 50

With --secrets FILE a request needs the provider's `Authorization` (401).
"""

import argparse
import asyncio
from hashlib import blake2b
from typing import NamedTuple, NoReturn

import msgspec
from aiohttp import web

from simulators.cli import Reporter, TimeScale, options, run, serve_options, share, strict_option
from simulators.faults import CALLBACKS, HELD_BACK, Faults, fault_options
from simulators.http_client import Caller
from simulators.http_server import (
    CallbackUrl,
    Handler,
    Problem,
    faults_routes,
    idempotency_key,
    one_at_a_time,
    read_body,
    respond,
    serve_party,
    with_faults,
)
from simulators.ledger import Ledger, PaymentEntry, now
from simulators.proofs import authorized, secrets_option
from simulators.seeding import is_drawn, split_rule
from topics.headers import IDEMPOTENCY_KEY
from topics.identity import OrderId
from topics.money import amount_text
from topics.orders import Amount, Currency
from topics.party_secrets import PartySecrets
from topics.payments import Charged, ChargeId, Declined, PaymentRecord, Refunded
from topics.records import Reader, write

MIN_STRIPE_AMOUNT = 50
"""Smallest amount that a provider with `--strict stripe` charges, in minor units."""
PROCESSING_S = 0.5
"""Simulated seconds that a bank takes."""


class ChargeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Take this amount, in minor units, for this order."""

    order: OrderId
    amount: Amount
    currency: Currency
    callback_url: CallbackUrl


class RefundRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Refund this charge in full."""

    order: OrderId
    charge_id: ChargeId
    amount: Amount
    currency: Currency
    callback_url: CallbackUrl


class DeclineRule(NamedTuple):
    """A choice of charges to decline: `never`, `always`, `share:P` of the orders, or amounts `ending:DIGITS`."""

    kind: str
    value: str

    @classmethod
    def read(cls, text: str) -> "DeclineRule":
        """Parse a rule of the command line."""
        kind, value = split_rule(text, "never", "always", "share:P", "ending:DIGITS")
        if kind == "share":
            share(value)
        return cls(kind, value)

    def reason(self, asked: "ChargeRequest", seed: str) -> str:
        """Return why this charge is declined; empty if it is charged."""
        if self.kind == "ending" and str(asked.amount).endswith(self.value):
            return f"amounts that end in {self.value} are not charged"
        if self.kind == "always" or (self.kind == "share" and is_drawn(float(self.value), seed, asked.order)):
            return "the card was declined"
        return ""


_charges: Reader[ChargeRequest] = Reader(ChargeRequest)
_refunds: Reader[RefundRequest] = Reader(RefundRequest)


class PaymentProvider:
    """The outcome of each key, and the callbacks that are still to be made."""

    def __init__(
        self, arguments: argparse.Namespace, caller: Caller, tasks: asyncio.TaskGroup, reporter: Reporter
    ) -> None:
        """Restore the state from the ledger; ``arguments`` are those of the command."""
        self._seed: str = arguments.seed
        self._time_scale: TimeScale = arguments.speed
        self._declined: DeclineRule = arguments.decline
        self._calls_back: bool = arguments.callback
        self._strict: str = arguments.strict
        self._secrets: PartySecrets = arguments.secrets
        self._takes_keyless: bool = arguments.keyless
        self._faults = Faults("payment", arguments.seed, arguments.faults)
        self._caller = caller
        self._tasks = tasks
        self._reporter = reporter
        self._ledger = Ledger(arguments.ledger, PaymentEntry)
        self._done: dict[str, PaymentEntry] = {}
        """Key -> its outcome, with the newest callback address."""
        self._charged: dict[str, PaymentEntry] = {}
        """Charge id -> the charge."""
        self._refunded: set[str] = set()
        """Ids of refunded charges."""
        self._owed: set[str] = set()
        """Keys whose callback had no final answer yet."""
        self._calling: set[str] = set()
        """Keys whose callback is being made."""
        self._in_process: set[str] = set()
        """Keys whose result is not ready yet."""
        for entry in self._ledger.written_before():
            self._remember(entry)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the provider."""
        return [
            web.post("/v1/charges", self._guarded(self.charge)),
            web.post("/v1/refunds", self._guarded(self.refund)),
            *faults_routes(self._faults),
        ]

    def _guarded(self, handler: Handler) -> Handler:
        admitted = one_at_a_time(with_faults(handler, self._faults), is_strict=bool(self._strict))
        return authorized(admitted, self._secrets)

    def resume(self) -> None:
        """Make the callbacks that the last process left open."""
        for key in self._owed:
            self._start_calling_back(key)

    async def charge(self, request: web.Request) -> web.Response:
        """Handle `POST /v1/charges`."""
        key, asked = self._key(request), await read_body(request, _charges)
        if self._strict == "stripe" and asked.amount < MIN_STRIPE_AMOUNT:
            raise Problem(400, f"the amount must be at least {MIN_STRIPE_AMOUNT}")
        if (done := self._done.get(key)) is None:
            reason = self._reason_to_decline(asked)
            done = self._record_outcome(
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
                    body_hash=_hash(asked),
                )
            )
        else:
            same = done.kind == "charge" and _money(done) == _money(asked)
            done = self._repeat(done, same, asked)
        return await self._answer(done)

    async def refund(self, request: web.Request) -> web.Response:
        """Handle `POST /v1/refunds`."""
        key, asked = self._key(request), await read_body(request, _refunds)
        if (done := self._done.get(key)) is None:
            self._check_refund(key, asked)
            done = self._record_outcome(
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
                    body_hash=_hash(asked),
                )
            )
        else:
            same = done.kind == "refund" and _money(done) == _money(asked) and done.charge_id == asked.charge_id
            done = self._repeat(done, same, asked)
        return await self._answer(done)

    def _key(self, request: web.Request) -> str:
        """Return the request's key, or a new one where a key is optional and absent."""
        given = request.headers.get(IDEMPOTENCY_KEY)
        return idempotency_key(request) if given or not self._takes_keyless else f"keyless-{len(self._done) + 1}"

    def _reason_to_decline(self, asked: ChargeRequest) -> str:
        """Return why the charge is declined; empty if it is charged."""
        if reason := self._declined.reason(asked, self._seed):
            return reason
        return "the card was declined" if self._faults.applies("decline", asked.order) else ""

    def _callback_url(self, asked: ChargeRequest | RefundRequest) -> str:
        """Return the address for the outcome; empty if the answer itself carries it."""
        calls_back = self._calls_back or any(kind in self._faults.rates for kind in CALLBACKS)
        return asked.callback_url if calls_back else ""

    def _check_refund(self, key: str, asked: RefundRequest) -> None:
        charge = self._charged.get(asked.charge_id)
        if charge is None or _money(charge) != _money(asked):
            self._refuse(key, asked, 422, f"there is no charge {asked.charge_id} of that order and amount")
        if asked.charge_id in self._refunded:
            self._refuse(key, asked, 409, f"charge {asked.charge_id} was refunded under another key")

    def _record_outcome(self, entry: PaymentEntry) -> PaymentEntry:
        self._ledger.append(entry)
        self._remember(entry)
        self._report(entry)
        return entry

    def _repeat(self, done: PaymentEntry, same: bool, asked: ChargeRequest | RefundRequest) -> PaymentEntry:
        """Return the outcome of a repeated request; refuse another request."""
        if not same or (self._strict and done.body_hash != _hash(asked)):
            status = 400 if self._strict == "stripe" else 422
            self._refuse(done.key, asked, status, f"the key {done.key} was used for another request")
        address = asked.callback_url if done.callback_url else ""
        return self._record_outcome(msgspec.structs.replace(done, at=now(), replay=True, callback_url=address))

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
        self._report(entry)
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
            self._refunded.add(entry.charge_id)
        if entry.callback_url and not entry.replay:
            self._owed.add(entry.key)

    async def _answer(self, done: PaymentEntry) -> web.Response:
        if done.callback_url and not done.replay:
            self._in_process.add(done.key)
            self._start_calling_back(done.key)
        if done.callback_url and done.key in self._in_process:
            return respond(202, {})
        await self._process(done.key)
        if done.outcome == "declined":
            return respond(402, {"reason": done.reason})
        if done.outcome == "refunded":
            return respond(200, {"refund_id": done.refund_id, "charge_id": done.charge_id})
        return respond(200, {"charge_id": done.charge_id, "amount": done.amount, "currency": done.currency})

    async def _process(self, key: str) -> None:
        """Take the time of a bank."""
        self._in_process.add(key)
        await self._time_scale.pass_time(PROCESSING_S)
        self._in_process.discard(key)

    def _start_calling_back(self, key: str) -> None:
        if key not in self._calling:
            self._calling.add(key)
            self._tasks.create_task(self._call_back(key))

    async def _call_back(self, key: str) -> None:
        await self._process(key)
        if fault := self._faults.one_of(HELD_BACK, key):
            await self._faults.hold_back(fault, self._time_scale)
        copies = 2 if self._faults.applies("doubled", key) else 1
        await asyncio.gather(*(self._call_back_once(key) for _ in range(copies)))
        self._calling.discard(key)

    async def _call_back_once(self, key: str) -> None:
        done = self._done[key]
        record = msgspec.Raw(write(_record(done)))
        answer = await self._caller.request_until_final("POST", lambda: self._done[key].callback_url, record, key)
        self._record_outcome(
            PaymentEntry(key=key, kind="callback", order=done.order, outcome="answered", status=answer.status)
        )

    def _report(self, entry: PaymentEntry) -> None:
        what = {"callback": f"callback answered {entry.status}"}.get(entry.kind, f"{entry.kind} {entry.outcome}")
        money = f" {amount_text(entry.amount, entry.currency)}" if entry.amount else ""
        again = " (again)" if entry.replay else ""
        self._reporter.event(f"{entry.order} {what}{money}{again}{': ' + entry.reason if entry.reason else ''}")


def _money(of: PaymentEntry | ChargeRequest | RefundRequest) -> tuple[str, int, str]:
    return of.order, of.amount, of.currency


def _hash(asked: ChargeRequest | RefundRequest) -> str:
    """Return a hash of the whole request, its callback address included."""
    return blake2b(msgspec.json.encode(asked), digest_size=8).hexdigest()


def _record(done: PaymentEntry) -> PaymentRecord:
    if done.outcome == "declined":
        return Declined(order=done.order, reason=done.reason, at=done.at)
    if done.outcome == "refunded":
        return Refunded(order=done.order, charge_id=done.charge_id, refund_id=done.refund_id, at=done.at)
    return Charged(order=done.order, charge_id=done.charge_id, amount=done.amount, currency=done.currency, at=done.at)


def _id(prefix: str, key: str) -> str:
    return f"{prefix}-{blake2b(key.encode(), digest_size=12).hexdigest()}"


def main() -> None:
    """Run `python -m simulators.payment`."""
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
    strict_option(parser)
    secrets_option(parser)
    parser.add_argument("--keyless", action="store_true", help="perform every request that has no Idempotency-Key")
    fault_options(parser, "payment")
    run(serve_party("payment", parser.parse_args(), PaymentProvider))


if __name__ == "__main__":
    main()
