"""What an outside party writes down: append-only files of JSON lines, which tell it after a crash where it stood.

One line is one `write` to a file opened for appending: a process killed at any moment has written a line whole or not
at all, and what it has written outlives it. (A ledger is not synced to disk: a machine that loses power may lose the
last lines.) A last line without its end, as a full disk leaves it, is cut off when the file is opened. A ledger belongs
to one process at a time.

Every field is in every line; one that does not apply is `""`, `null`, `0` or `false`. `at` is RFC 3339 UTC, money is in
minor units. The files, one object a line:

`payment.jsonl` (`PaymentEntry`)
    at, key (the request's Idempotency-Key), kind, order, charge_id, refund_id, amount, currency, outcome, replay,
    reason, callback_url, status

    kind      outcome              means
    charge    charged, declined    the customer was charged / was not; with `replay`, only the same answer again
    charge    refused              422 or the like: nothing was done (the key was used for another request, ...)
    refund    refunded             `charge_id` was given back; with `replay`, only the same answer again
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
    replay    the same request again: nothing was done, the same answer given
    refused   the key was used for another request: nothing was done
    told      the callback `told` (accepted, rejected, finished) had a final answer: HTTP `status`

`trips.jsonl` (`TripEntry`)
    at, driver, event, delivery, attempt, shift, position

    event      means
    available  the worker has heard that the driver wants work, in `shift`
    assigned   the driver has learnt of a delivery: from here it is theirs
    picked_up  the worker has heard that the driver has the food
    delivered  the worker has heard that the customer has the food: from here it is theirs no more
    dropped    the driver has learnt that the delivery is no longer theirs
    unavailable  the worker has heard that the driver wants no more work

`answers.jsonl` (`AnswerEntry`)
    at, event, order, via, outcome, status, placed_at, deliver_at, reason

    event    means
    placing  the order is about to be placed, `via` http or kafka, as one `placed_at` and wished for `deliver_at`
    answer   outcome `accepted`: answered 2xx (`status`), or acknowledged by Kafka (`status` 0);
             outcome `refused`: answered with another final `status`
    malformed  something that is no order was sent; `outcome` as for an answer, empty over Kafka, which asks nobody
    ended    the order's status as followed: DELIVERED, REJECTED or CANCELLED in `outcome`
"""

import fcntl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, Literal, TypeVar

import msgspec

from simulators.command import Failure
from topics.places import Position
from topics.records import Instant


def now() -> datetime:
    """The moment an entry is made."""
    return datetime.now(UTC)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a ledger."""

    at: Instant = msgspec.field(default_factory=now)


class PaymentEntry(Entry, frozen=True, kw_only=True):
    """What the payment provider did for a request."""

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


class TicketEntry(Entry, frozen=True, kw_only=True):
    """What a restaurant's point of sale did with a ticket."""

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
    """What a driver did."""

    driver: str
    event: Literal["available", "assigned", "picked_up", "delivered", "dropped", "unavailable"]
    delivery: str = ""
    attempt: int = 0
    shift: int = 0
    position: Position | None = None


class AnswerEntry(Entry, frozen=True, kw_only=True):
    """What the ordering provider was answered."""

    event: Literal["placing", "answer", "malformed", "ended"]
    order: str
    via: Literal["http", "kafka"] = "http"
    outcome: str = ""
    status: int = 0
    placed_at: Instant | None = None
    deliver_at: Instant | None = None
    reason: str = ""


E = TypeVar("E", bound=Entry)


class Ledger(Generic[E]):
    """A file of entries of one kind, held by this process alone."""

    def __init__(self, path: Path, kind: type[E]) -> None:
        """Open or create it and cut a torn last line off. `Failure` says why that cannot be."""
        self.path = path
        self._decoder = msgspec.json.Decoder(kind)
        self._encoder = msgspec.json.Encoder()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
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
        """The entries found when it was opened, oldest first, once; `Failure` names the line that is none."""
        lines, self._lines = self._lines, []
        for number, line in enumerate(lines, 1):
            try:
                yield self._decoder.decode(line)
            except msgspec.DecodeError as error:
                raise Failure(f"{self.path}, line {number}, cannot be read ({error}): move the file away") from None

    def append(self, entry: E) -> None:
        """Write an entry; once this returns, no kill of this process undoes it."""
        line = self._encoder.encode(entry) + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise Failure(f"the ledger {self.path} cannot be written: {error.strerror}") from None
        if written != len(line):
            raise Failure(f"the ledger {self.path} cannot be written: the disk is full")

    def close(self) -> None:
        """Leave it to others."""
        self._file.close()
