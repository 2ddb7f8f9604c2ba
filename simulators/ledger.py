"""The ledgers of the outside parties: append-only files of JSON lines, from which a party restores its state.

One line is one `write` to a file opened for appending: a process killed at any moment has written a line whole or not
at all, and the written lines outlive it. (A ledger is not synced to disk: a machine that loses power may lose the last
lines.) A last line without its end, as a full disk leaves it, is cut off when the file is opened. One process at a time
holds a ledger.

Every field is in every line; one that does not apply is `""`, `null`, `0` or `false`. `at` is RFC 3339 UTC, money is in
minor units. The files, one object a line:

`payment.jsonl` (`PaymentEntry`)
    at, key (the request's Idempotency-Key), kind, order, charge_id, refund_id, amount, currency, outcome, replay,
    reason, callback_url, status, body_hash (of the request)

    kind      outcome              means
    charge    charged, declined    the customer was charged / was not; with `replay`, only the first answer again
    charge    refused              422 or the like: nothing was done (the key was used for another request, ...)
    refund    refunded             `charge_id` was given back; with `replay`, only the first answer again
    refund    refused              nothing was done
    callback  answered             the callback for `key` had a final answer: HTTP `status`

    Net charges of an order: `charged` minus `refunded`, both without `replay`. `callback_url` is empty where the
    request itself was answered with the outcome.

`pos.jsonl` (`TicketEntry`)
    at, event, order, key (the request's Idempotency-Key), restaurant, display_number, reason, ready_at, callback_url,
    told, status, body_hash

    event     means
    received  a new ticket that is decided later (it was answered 202)
    accepted  it is being cooked and ready at `ready_at`; without a `received` before it, it was answered 200
    rejected  it is not cooked; without a `received` before it, it was answered 409
    finished  it was cooked: once a ticket
    replay    a repeated request: no effect, and the first answer again
    refused   the key was used for another request: nothing was done
    told      the callback `told` (accepted, rejected, finished) had a final answer: HTTP `status`

`trips.jsonl` (`TripEntry`)
    at, driver, event, delivery, attempt, shift, position

    event      means
    available  the worker has accepted that the driver works, in `shift`
    assigned   the driver has received a delivery, and has it from here on
    picked_up  the worker has accepted that the driver has the food
    delivered  the worker has accepted that the customer has the food; the driver has no delivery
    dropped    the driver has lost the delivery
    unavailable  the worker has accepted that the driver stops working

`answers.jsonl` (`AnswerEntry`)
    at, event, order, via, outcome, status, placed_at, deliver_at, reason

    event    means
    placing  the order is about to be placed, `via` http or kafka, with these `placed_at` and `deliver_at`
    answer   outcome `accepted`: answered 2xx (`status`), or acknowledged by Kafka (`status` 0);
             outcome `refused`: answered with another final `status`
    malformed  an invalid order was sent; `outcome` as for an answer, empty over Kafka, which has no answers
    ended    the order's status as followed: DELIVERED, REJECTED or CANCELLED in `outcome`

`runs.jsonl` (`RunEntry`)
    at, party, speed

    One line at the start of each simulator, with the type `Run`: its time passes `speed` times as fast as real time.
    The workers of the directory append lines too. The oracle judges waits by the speed in force.
"""

import fcntl
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, Literal, TypeVar

import msgspec

from simulators.cli import Failure
from topics.places import Position
from topics.records import Instant


def now() -> datetime:
    """Return the present moment, in UTC."""
    return datetime.now(UTC)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a ledger."""

    at: Instant = msgspec.field(default_factory=now)


class PaymentEntry(Entry, frozen=True, kw_only=True):
    """A line of the payment provider: a request, or a callback, and its outcome."""

    key: str
    kind: Literal["charge", "refund", "callback"]
    order: str
    outcome: Literal["charged", "declined", "refunded", "refused", "answered"]
    charge_id: str = ""
    refund_id: str = ""
    amount: int = 0
    currency: str = ""
    replay: bool = False
    reason: str = ""
    callback_url: str = ""
    status: int = 0
    body_hash: str = ""


class TicketEntry(Entry, frozen=True, kw_only=True):
    """A line of a point of sale: an event of a ticket."""

    event: Literal["received", "accepted", "rejected", "finished", "replay", "refused", "told"]
    order: str
    key: str
    restaurant: str
    display_number: str = ""
    reason: str = ""
    ready_at: Instant | None = None
    callback_url: str = ""
    told: str = ""
    status: int = 0
    body_hash: str = ""


class TripEntry(Entry, frozen=True, kw_only=True):
    """A line of a driver: an event of a trip or a shift."""

    driver: str
    event: Literal["available", "assigned", "picked_up", "delivered", "dropped", "unavailable"]
    delivery: str = ""
    attempt: int = 0
    shift: int = 0
    position: Position | None = None


class AnswerEntry(Entry, frozen=True, kw_only=True):
    """A line of the ordering provider: an order that is placed, answered or ended."""

    event: Literal["placing", "answer", "malformed", "ended"]
    order: str
    via: Literal["http", "kafka"] = "http"
    outcome: str = ""
    status: int = 0
    placed_at: Instant | None = None
    deliver_at: Instant | None = None
    reason: str = ""


class RunEntry(Entry, frozen=True, kw_only=True, tag="Run"):
    """The start of a simulator."""

    party: str
    speed: float


def record_run(ledger: Path, party: str, speed: float) -> None:
    """Append the speed of a run to `runs.jsonl`, beside the party's ledger. Raises `Failure` if that fails."""
    path = ledger.parent / "runs.jsonl"
    try:
        with path.open("ab", buffering=0) as file:  # one write a line: several parties append to the file
            file.write(msgspec.json.encode(RunEntry(party=party, speed=speed)) + b"\n")
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from None


E = TypeVar("E", bound=Entry)


class Ledger(Generic[E]):
    """A file of entries of one kind, held by this process alone."""

    def __init__(self, path: Path, kind: type[E]) -> None:
        """Open or create the file and cut a torn last line off. Raises `Failure` if that fails."""
        self.path = path
        self._decoder = msgspec.json.Decoder(kind)
        self._encoder = msgspec.json.Encoder()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.parent.stat().st_uid != os.geteuid():
                raise Failure(f"{path.parent} belongs to another user: name a file elsewhere with --ledger")
            self._file = path.open("ab", buffering=0)  # unbuffered: one `write` a call
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(
                f"{path} is in use by another process: end that one, or name another file with --ledger"
            ) from None
        except OSError as error:
            raise Failure(f"the ledger {path} cannot be opened: {error.strerror}; name another with --ledger") from None
        self._lines = path.read_bytes().split(b"\n")
        torn = len(self._lines.pop())
        if torn:
            self._file.truncate(path.stat().st_size - torn)

    def written_before(self) -> Iterator[E]:
        """Yield once the entries found at the opening, oldest first. Raises `Failure` at a line that is no entry."""
        lines, self._lines = self._lines, []
        for number, line in enumerate(lines, 1):
            try:
                yield self._decoder.decode(line)
            except msgspec.DecodeError as error:
                raise Failure(f"{self.path}, line {number}, cannot be read ({error}): move the file away") from None

    def append(self, entry: E) -> None:
        """Write an entry, which survives a kill of this process. Raises `Failure` if the file cannot be written."""
        line = self._encoder.encode(entry) + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise Failure(f"the ledger {self.path} cannot be written: {error.strerror}") from None
        if written != len(line):
            raise Failure(f"the ledger {self.path} cannot be written: the disk is full")

    def close(self) -> None:
        """Close the file and release it for other processes."""
        self._file.close()
