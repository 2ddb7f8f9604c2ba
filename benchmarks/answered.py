"""The app without destinations: each call is answered at once, as the best parties would.

`benchmarks.topics_only` produces the restaurants' reports as records. `faust -A benchmarks.answered worker`
"""

import msgspec

from exactly_once import CallOutcome, Completed, DestinationKey
from processors.call_kinds import CallKind
from streams.build import Surroundings, build
from streams.calls.http_performer import ROWS, Answer, HttpPerformer
from streams.cli import faust_commands
from streams.settings import Settings

RECEIVED = Completed(msgspec.json.encode(Answer(202, "")))


class Money(msgspec.Struct):
    """Fields of a charge that its answer repeats."""

    order: str
    amount: int
    currency: str


MONEY = msgspec.json.Decoder(Money)


class InstantPerformer(HttpPerformer):
    """Answers without a connection."""

    def destination_of(self, request: bytes) -> DestinationKey:
        """Return one destination for all calls."""
        return DestinationKey("nobody", "nobody")

    async def perform(self, call_id: bytes, request: bytes, attempt: int) -> CallOutcome:
        """Answer at once: charged, or received."""
        row = ROWS.decode(request)
        if row.kind is not CallKind.CHARGE:
            return RECEIVED
        asked = MONEY.decode(row.body)
        charge = {
            "charge_id": f"ch-{asked.order.rpartition(':')[2]}",
            "amount": asked.amount,
            "currency": asked.currency,
        }
        return Completed(msgspec.json.encode(Answer(200, msgspec.json.encode(charge).decode())))


app = build(Settings.from_environment(), surroundings=Surroundings(make_performer=InstantPerformer)).app
faust_commands.register()
