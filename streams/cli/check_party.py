"""`dabbawala check-party`: run the contract of calls against an implementation of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import click
import httpx
from rich.text import Text

from processors.call_kinds import CALLS, CallKind, call_key
from processors.call_results import Verdict, to_event, unclear, verdict_on
from processors.decision import Call
from processors.events import CallAnswered, TicketReceived
from processors.requests import ChargeRequest, PrepareRequest, RefundRequest, TicketItem
from streams.access.party_proofs import NO_PROOFS, PartyProofs, WrongPartySecrets, without_credentials
from streams.calls.http_performer import ROWS, TIMEOUT_S, row_of
from streams.cli.errors import EXIT_FALSE, CommandError
from streams.cli.kafka import read_settings
from streams.cli.output import json_option, print_json, print_table, text
from topics.headers import IDEMPOTENCY_KEY
from topics.payments import Charged, Declined, Refunded
from topics.pos import TicketAccepted, TicketRejected

NOBODY = "http://127.0.0.1:9"
"""Address of the callbacks: nobody listens there, and nothing here depends on them."""
AT_ONCE = 5
"""Number of equal requests at the same time."""
PATIENCE_S = 30.0
"""Longest wait for the result of a request that was answered "later"."""
PAUSE_S = 0.5
OUTDATED_MS = 10 * 60 * 1000
"""Age of an old signature. A party takes one of the last five minutes."""
REFUSALS = (401, 403)
"""Statuses for a request without a valid proof."""
HEADS = ("check", "fits", "found")
WORD_FOR: dict[type, str] = {
    Charged: "charged",
    Declined: "declined",
    Refunded: "refunded",
    TicketAccepted: "accepted",
    TicketRejected: "rejected",
    TicketReceived: "received",
}


class Check(NamedTuple):
    """One line of the report."""

    name: str
    fits: bool
    found: str


class Reply(NamedTuple):
    """The answer to one request, as a worker understands it."""

    answer: CallAnswered
    seconds: float

    @property
    def is_final(self) -> bool:
        """True if the answer ends a call."""
        return verdict_on(self.answer) is Verdict.FINAL

    @property
    def event(self) -> Any:
        """Meaning of the answer."""
        return to_event(self.answer)

    def __str__(self) -> str:
        word = WORD_FOR.get(type(self.event))
        if verdict_on(self.answer) is Verdict.LATER:
            word = "later"
        return f"{self.answer.status}: {word}" if word else unclear(self.answer)


class Party:
    """The party under test."""

    def __init__(self, client: httpx.AsyncClient, url: str, proofs: PartyProofs, outdated: PartyProofs) -> None:
        """``outdated`` makes signatures that are too old."""
        self._client = client
        self._url = url.rstrip("/")
        self._proofs = proofs
        self._outdated = outdated

    async def ask(self, call: Call, proofs: PartyProofs | None = None) -> Reply:
        """Make one request, with the body that a worker would send, and by default with its proof."""
        body = bytes(ROWS.decode(row_of(call, NOBODY, "payments")).body)
        proof = _proof(proofs or self._proofs, call, body)
        headers = {"Content-Type": "application/json", IDEMPOTENCY_KEY: call.key, **proof}
        began = time.monotonic()
        try:
            response = await self._client.post(self._url + CALLS[call.kind].path, content=body, headers=headers)
        except httpx.TimeoutException:
            raise CommandError(f"{self._url} gives no answer within {TIMEOUT_S:g} s.") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CommandError(f"{self._url} does not answer ({type(error).__name__}): is the address right?") from None
        answer = CallAnswered(call.key, call.kind, response.status_code, without_credentials(response.text, proof))
        return Reply(answer, time.monotonic() - began)

    async def ask_until_final(self, call: Call) -> Reply:
        """Repeat a request while it is answered "later", as a worker does."""
        deadline = time.monotonic() + PATIENCE_S
        reply = await self.ask(call)
        while verdict_on(reply.answer) is Verdict.LATER and time.monotonic() < deadline:
            await asyncio.sleep(PAUSE_S)
            reply = await self.ask(call)
        return reply

    async def check_proof(self, call: Call) -> AsyncIterator[Check]:
        """Repeat a request with an old signature and without a proof, if requests to this party have one."""
        proof = _proof(self._proofs, call, b"")
        if "webhook-id" in proof:
            yield _is_refused("a ticket with an old signature is refused", await self.ask(call, self._outdated))
        if proof:
            yield _is_refused("a request without its proof is refused", await self.ask(call, NO_PROOFS))

    async def ask_at_once(self, call: Call) -> list[Reply]:
        """Make equal requests at the same time."""
        return list(await asyncio.gather(*(self.ask(call) for _ in range(AT_ONCE))))


@click.command(name="check-party")
@click.argument("kind", type=click.Choice(["pos", "payment"]))
@click.argument("url")
@click.option("--amount", default=1, show_default=True, help="Amount to charge, in minor units.")
@click.option("--currency", default="INR", show_default=True, help="Currency to charge.")
@click.option("--restaurant", default="", help="Id of the restaurant; without it the last part of the URL.")
@click.option("--item", default="CHECK-1", show_default=True, help="pos_code of the item on the ticket.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="Header of each request; repeatable.")
@json_option
@click.pass_context
def check_party(
    ctx: click.Context, /, kind: str, url: str, as_json: bool, headers: tuple[str, ...], **given: Any
) -> None:
    """Run the contract against a payment provider or a point of sale at URL.

    The command makes real requests under new keys: it charges AMOUNT twice and refunds one of them, or sends two
    tickets whose note asks the kitchen not to cook. Run it against a test account. URL is the address to which
    /v1/charges or /prepare is appended. The requests have the proofs of DABBAWALA_PARTY_SECRETS. The contracts are
    docs/contract-payment.md and docs/contract-pos.md. Callbacks are not checked.

    \b
    Exit codes: 0  everything fits
                1  something does not fit
                2  the party does not answer; one sentence says why
    """
    file = read_settings().party_secrets
    try:
        checks = asyncio.run(_run(kind, url, dict(_header(each) for each in headers), file, **given))
    except WrongPartySecrets as wrong:
        raise CommandError(str(wrong)) from None
    if as_json:
        print_json([check._asdict() for check in checks])
    else:
        print_table(f"{kind} at {url}", HEADS, (_line(check) for check in checks))
    if not all(check.fits for check in checks):
        ctx.exit(EXIT_FALSE)


def _header(given: str) -> tuple[str, str]:
    name, colon, value = given.partition(":")
    if not colon:
        raise CommandError(f"--header {given!r} has no colon: write NAME:VALUE.")
    return name.strip(), value.strip()


def _line(check: Check) -> list[Text]:
    return [text(check.name), Text("yes", "green") if check.fits else Text("no", "bold red"), text(check.found)]


async def _run(
    kind: str,
    url: str,
    headers: dict[str, str],
    file: Path | None,
    *,
    amount: int,
    currency: str,
    restaurant: str,
    item: str,
) -> list[Check]:
    async with httpx.AsyncClient(timeout=TIMEOUT_S, headers=headers, trust_env=False) as client:
        party = Party(client, url, _proofs_of_age(0, file), _proofs_of_age(OUTDATED_MS, file))
        if kind == "payment":
            return [check async for check in _check_payment(party, amount, currency)]
        restaurant = restaurant or url.rstrip("/").rpartition("/")[2]
        return [check async for check in _check_pos(party, restaurant, item)]


# -- the payment provider --------------------------------------------------------------------------------------------


def _charge(order: str, amount: int, currency: str) -> Call:
    request = ChargeRequest(order=order, amount=amount, currency=currency)
    return Call(call_key(order, CallKind.CHARGE), CallKind.CHARGE, request)


async def _check_payment(party: Party, amount: int, currency: str) -> AsyncIterator[Check]:
    order = _new_order()
    call = _charge(order, amount, currency)
    first = await party.ask_until_final(call)
    yield _in_time(first)
    charged = first.event
    is_charged = isinstance(charged, Charged)
    yield Check("a charge is made", is_charged, str(first))
    if not is_charged:
        return
    same_money = (charged.amount, charged.currency) == (amount, currency)
    yield Check("the answer has its amount and currency", same_money, f"{charged.amount} {charged.currency}")
    again = await party.ask_until_final(call)
    yield Check("the same request again has the same result", again.event == charged, str(again))
    other = await party.ask(_charge(order, amount + 1, currency))
    harmless = not other.is_final or other.event == charged
    yield Check("another amount under the key charges nothing", harmless, str(other))
    moved = await party.ask_until_final(call)
    yield Check("the key keeps its result after that", moved.event == charged, str(moved))
    async for check in party.check_proof(call):
        yield check
    yield await _check_at_once(party, _charge(_new_order(), amount, currency))
    async for check in _check_refund(party, order, charged):
        yield check


async def _check_refund(party: Party, order: str, charged: Charged) -> AsyncIterator[Check]:
    request = RefundRequest(order=order, charge_id=charged.charge_id, amount=charged.amount, currency=charged.currency)
    call = Call(call_key(order, CallKind.REFUND, charged.charge_id), CallKind.REFUND, request)
    for name in ("a refund is made", "the same refund again has the same result"):
        reply = await party.ask_until_final(call)
        yield Check(name, isinstance(reply.event, Refunded), str(reply))


# -- the point of sale -----------------------------------------------------------------------------------------------


def _prepare(order: str, restaurant: str, item: str, note: str = "TEST, do not cook") -> Call:
    line = TicketItem(id="1", pos_code=item, name="Test", quantity=1, modifiers=(), note="")
    request = PrepareRequest(
        order=order, restaurant=restaurant, pos_url="", display_number="TEST", items=(line,), note=note
    )
    return Call(call_key(order, CallKind.PREPARE), CallKind.PREPARE, request)


async def _check_pos(party: Party, restaurant: str, item: str) -> AsyncIterator[Check]:
    order = _new_order()
    call = _prepare(order, restaurant, item)
    first = await party.ask_until_final(call)
    yield _in_time(first)
    yield Check("a ticket is accepted, rejected or received", first.is_final, str(first))
    if not first.is_final:
        return
    again = await party.ask_until_final(call)
    yield Check("the same ticket again has the same result", _agree([first, again]), str(again))
    other = await party.ask(_prepare(order, restaurant, item, "TEST, another note"))
    yield Check("another ticket under the key decides nothing", _agree([first, other]), str(other))
    moved = await party.ask_until_final(call)
    yield Check("the key keeps its result after that", moved.is_final and _agree([first, moved]), str(moved))
    async for check in party.check_proof(call):
        yield check
    yield await _check_at_once(party, _prepare(_new_order(), restaurant, item))


# -- proofs -----------------------------------------------------------------------------------------------------------


def _proofs_of_age(age_ms: int, file: Path | None) -> PartyProofs:
    return PartyProofs(file, lambda: time.time_ns() // 1_000_000 - age_ms, time.monotonic)


def _proof(proofs: PartyProofs, call: Call, body: bytes) -> Mapping[str, str]:
    if isinstance(call.request, PrepareRequest):
        return proofs.of_ticket(call.request.restaurant, call.key, body)
    return proofs.of_payment()


def _is_refused(name: str, reply: Reply) -> Check:
    return Check(name, reply.answer.status in REFUSALS, f"answered {reply.answer.status}")


# -- both ------------------------------------------------------------------------------------------------------------


def _new_order() -> str:
    return f"check-party:{uuid4().hex}"


def _in_time(reply: Reply) -> Check:
    return Check(f"an answer comes within {TIMEOUT_S:g} s", reply.seconds < TIMEOUT_S, f"{reply.seconds:.1f} s")


def _agree(replies: list[Reply]) -> bool:
    """Return whether the final answers amount to one result. A receipt agrees with a later decision."""
    decided = [reply.event for reply in replies if reply.is_final and not isinstance(reply.event, TicketReceived)]
    return all(event == decided[0] for event in decided)


async def _check_at_once(party: Party, call: Call) -> Check:
    replies = await party.ask_at_once(call)
    replies.append(await party.ask_until_final(call))
    fits = replies[-1].is_final and _agree(replies)
    found = ", ".join(sorted({str(reply) for reply in replies}))
    return Check(f"{AT_ONCE} equal requests at once have one result", fits, found)
