"""Calls carry a proof that a party can verify; the proof is made for each attempt and kept in no row."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from multidict import CIMultiDict

from exactly_once import Completed, Retry, Unsettled
from processors.call_kinds import CallKind
from processors.call_results import NOT_SENT
from processors.decision import Call
from processors.requests import ChargeRequest, PrepareRequest, RefundRequest
from simulators.http_server import Handler, respond, served
from simulators.proofs import authorized, signed
from streams.access.party_proofs import PartyProofs
from streams.calls.http_performer import ANSWERS, QUICK_ATTEMPTS, HttpPerformer, row_of
from tests.support.keys import BANK, NEW_SIGNING_SECRET, SIGNING_SECRET, write_party_secrets
from topics.party_secrets import PartySecrets

TICKET, CHARGE, REFUND = b"shop:1/prepare", b"shop:1/charge", b"shop:1/refund/ch-1"
SECRETS = PartySecrets({"thali": (SIGNING_SECRET,)}, BANK)


class City:
    """Restaurants and a payment provider that verify proofs with `SECRETS`: `thali` is the only restaurant with one."""

    def __init__(self) -> None:
        self.url = ""
        self.headers: list[CIMultiDict[str]] = []
        """Headers of the requests that came."""
        self.admitted = 0
        """Number of requests that had a valid proof, or needed none."""
        self.provider_says = ""
        """Reason of the provider's answer."""

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of all parties."""
        ticket, payment = signed(self._admit, SECRETS), authorized(self._admit, SECRETS)
        return [
            web.post("/restaurants/{restaurant}/prepare", self._recorded(ticket)),
            web.post("/v1/{what}", self._recorded(payment)),
        ]

    def ticket(self, restaurant: str = "thali") -> bytes:
        """Return the row of a call to a restaurant."""
        url = f"{self.url}/restaurants/{restaurant}"
        asked = PrepareRequest(
            order="shop:1", restaurant=restaurant, pos_url=url, display_number="1", items=(), note="caf\u00e9"
        )
        return row_of(Call("", CallKind.PREPARE, asked), "http://us", "bank")

    def _recorded(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.headers.append(request.headers.copy())
            return await handler(request)

        return handle

    async def _admit(self, request: web.Request) -> web.Response:
        self.admitted += 1
        if request.path.endswith("/prepare"):
            return respond(200, {"status": "accepted"})
        return respond(402, {"reason": self.provider_says})


@pytest.fixture
async def city() -> AsyncIterator[City]:
    city = City()
    async with served(city.routes(), "127.0.0.1", 0, ("us",)) as (url, _):
        city.url = url
        yield city


@asynccontextmanager
async def calling(city: City, file: Path | None) -> AsyncIterator[HttpPerformer]:
    """Provide a performer that looks at the file of secrets before each attempt."""
    seconds = count()
    proofs = PartyProofs(file, lambda: time.time_ns() // 1_000_000, lambda: float(next(seconds)))
    performer = HttpPerformer(city.url, "bank", lambda _: "capability", proofs=proofs)
    try:
        yield performer
    finally:
        await performer.close()


def payment(kind: CallKind) -> bytes:
    """Return the row of a charge or a refund."""
    asked = (
        ChargeRequest(order="shop:1", amount=1, currency="INR")
        if kind is CallKind.CHARGE
        else RefundRequest(order="shop:1", charge_id="ch-1", amount=1, currency="INR")
    )
    return row_of(Call("", kind, asked), "http://us", "bank")


async def test_a_restaurant_verifies_its_ticket(city: City, tmp_path: Path) -> None:
    """The signature covers the bytes on the wire, with the capability that the row does not have."""
    async with calling(city, write_party_secrets(tmp_path / "secrets", thali=SIGNING_SECRET)) as performer:
        outcomes = [await performer.perform(TICKET, city.ticket(), attempt) for attempt in (1, 2)]
    assert [type(outcome) for outcome in outcomes] == [Completed, Completed]
    first, second = city.headers
    assert first["webhook-id"] == second["webhook-id"] == first["Idempotency-Key"] == TICKET.decode()
    assert "Authorization" not in first


async def test_a_restaurant_without_a_secret_gets_no_signature(city: City, tmp_path: Path) -> None:
    async with calling(city, write_party_secrets(tmp_path / "secrets", thali=SIGNING_SECRET)) as performer:
        await performer.perform(TICKET, city.ticket("dosa"), 1)
    assert city.admitted == 1
    assert not [name for name in city.headers[0] if name.lower().startswith(("webhook", "authorization"))]


async def test_the_provider_gets_its_credentials(city: City, tmp_path: Path) -> None:
    async with calling(city, write_party_secrets(tmp_path / "secrets", thali=SIGNING_SECRET)) as performer:
        await performer.perform(CHARGE, payment(CallKind.CHARGE), 1)
        await performer.perform(REFUND, payment(CallKind.REFUND), 1)
    assert [headers["Authorization"] for headers in city.headers] == [BANK, BANK]
    assert city.admitted == 2


@pytest.mark.parametrize("attempt", [1, QUICK_ATTEMPTS, 50])
async def test_a_wrong_secret_leaves_the_call_open(city: City, tmp_path: Path, attempt: int) -> None:
    """The first refusals are retried soon; then a person is asked, and the call goes on. A mended file settles it."""
    file = write_party_secrets(tmp_path / "secrets", "Bearer something-else", thali=NEW_SIGNING_SECRET)
    calls = ((TICKET, city.ticket()), (CHARGE, payment(CallKind.CHARGE)), (REFUND, payment(CallKind.REFUND)))
    async with calling(city, file) as performer:
        for key, row in calls:
            outcome = await performer.perform(key, row, attempt)
            assert isinstance(outcome, Retry if attempt < QUICK_ATTEMPTS else Unsettled)
            assert "answered 401" in outcome.last_error
        assert city.admitted == 0
        write_party_secrets(file, thali=f"{NEW_SIGNING_SECRET} {SIGNING_SECRET}")
        for key, row in calls:
            await performer.perform(key, row, attempt + 1)
    assert city.admitted == 3


async def test_an_unread_file_stops_the_call_before_it_is_sent(city: City, tmp_path: Path) -> None:
    file = write_party_secrets(tmp_path / "secrets", thali=SIGNING_SECRET)
    file.chmod(0o644)
    async with calling(city, file) as performer:
        outcome = await performer.perform(TICKET, city.ticket(), 1)
    assert isinstance(outcome, Unsettled)
    assert ANSWERS.decode(outcome.result).status == NOT_SENT
    assert "chmod 600" in outcome.last_error
    assert not city.headers


async def test_no_secret_is_in_rows_outcomes_or_logs(
    city: City, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even if the provider repeats the credentials in its answer."""
    caplog.set_level("DEBUG")
    file = write_party_secrets(tmp_path / "secrets", thali=SIGNING_SECRET)
    city.provider_says = f"{BANK} is not known; did you mean {BANK.split()[1]}x?"
    seen: list[Any] = [city.ticket(), payment(CallKind.CHARGE)]
    async with calling(city, file) as performer:
        seen += [await performer.perform(TICKET, city.ticket(), 1)]
        seen += [await performer.perform(CHARGE, payment(CallKind.CHARGE), 1)]
        seen += [await performer.perform(b"shop:1\n/charge", payment(CallKind.CHARGE), 1)]
    assert city.admitted == 2
    text = repr(seen) + caplog.text
    assert "is not known" in text
    signature = city.headers[0]["webhook-signature"].removeprefix("v1,")
    assert not [secret for secret in (SIGNING_SECRET, BANK.split()[1], signature) if secret in text]
