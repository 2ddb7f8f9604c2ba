"""The ledgers of the outside parties: append-only files of JSON lines.

The oracle relies only on the documented fields, and ignores others. It reports a line that it cannot read, and uses the
rest of the ledger. It ignores a last line without a line end, because the party is still writing it.

| file | writer | content |
|---|---|---|
| `payment.jsonl` | the payment provider | charges, refunds, and the callbacks that were answered |
| `pos.jsonl` | the restaurants | events of each ticket |
| `trips.jsonl` | the drivers | begin and end of each delivery |
| `answers.jsonl` | the ordering provider | placed orders, and the answers |
| `observers.jsonl` | an observer of orders | the `status` that each `version` had, `via` http or feed |
| `poison.jsonl` | a sender of records that nobody can apply | location of each record, and the `id` in it |
| `intrusions.jsonl` | an intruder | the answers to requests for the things of others |
| `runs.jsonl` | every worker and simulator, at its start | the speed of its time, relative to real time |

`simulators/ledger.py` documents the fields of the first four. Anybody may write the others:

`observers.jsonl`
    at, observer (name of one sequence of observations), order, version, status, via (`http` or `feed`)
`poison.jsonl`
    at, topic, partition, offset (location of the record), id (a text that no other record has in its key or value)
`intrusions.jsonl`
    at, order, who (whose key or proof the request had), method, path, allowed (false: only a refusal is right), status
    (0: no answer), shown (a text in the answer that is hidden from the sender; empty if there is none)
`runs.jsonl`
    type (`Run`), at, party (`worker-1`, `payment`, ...), speed (1: real time), running (in a worker's line: the workers
    that run at that time, itself included; empty in a simulator's line)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from topics.records import Instant, epoch_ms


class Line(msgspec.Struct, kw_only=True):
    """A line of a ledger and its location."""

    at: Instant
    file: str = msgspec.field(default="", name="(file)")  # a line may have a field of any name
    number: int = msgspec.field(default=0, name="(number)")

    @property
    def at_ms(self) -> int:
        """Time of the line in milliseconds since 1970."""
        return epoch_ms(self.at)

    @property
    def where(self) -> str:
        """Location of the line, for people."""
        return f"{self.file} line {self.number}"


class PaymentLine(Line, kw_only=True):
    """The payment provider's action on a request. With ``replay`` it only repeated its earlier answer."""

    key: str
    kind: str
    order: str
    outcome: str
    charge_id: str = ""
    amount: int = 0
    currency: str = ""
    replay: bool = False


class TicketLine(Line, kw_only=True):
    """A restaurant's action on a ticket."""

    event: str
    order: str
    key: str
    restaurant: str = ""
    told: str = ""
    status: int = 0


class TripLine(Line, kw_only=True):
    """A driver's action."""

    driver: str
    event: str
    delivery: str = ""


class AnswerLine(Line, kw_only=True):
    """An order of the ordering provider, an answer to it, or its end."""

    event: str
    order: str
    via: str = "http"
    outcome: str = ""
    status: int = 0
    deliver_at: Instant | None = None


class ObserverLine(Line, kw_only=True):
    """An observation of an order."""

    observer: str
    order: str
    version: int
    status: str
    via: str = "http"


class PoisonLine(Line, kw_only=True):
    """A record that nobody can apply."""

    topic: str
    partition: int
    offset: int
    id: str = ""


class IntrusionLine(Line, kw_only=True):
    """An answer to an intruder. ``allowed`` is false if only a refusal is right."""

    order: str
    who: str
    method: str
    path: str
    status: int
    allowed: bool = False
    shown: str = ""


class RunLine(Line, kw_only=True):
    """Start of a party. ``running`` lists the workers that ran at that time; it is empty for a simulator."""

    party: str
    speed: float
    running: tuple[str, ...] = ()

    @property
    def is_worker(self) -> bool:
        """True if the party is a worker, and not a simulator."""
        return bool(self.running)


KINDS: dict[str, type[Line]] = {
    "payment": PaymentLine,
    "pos": TicketLine,
    "trips": TripLine,
    "answers": AnswerLine,
    "observers": ObserverLine,
    "poison": PoisonLine,
    "intrusions": IntrusionLine,
    "runs": RunLine,
}

L = TypeVar("L", bound=Line)


def read(directory: Path, name: str, kind: type[L], wrong: list[tuple[str, str]]) -> list[L] | None:
    """Return the lines of a ledger, oldest first; None if the file does not exist or cannot be read.

    Appends (location, reason) to ``wrong`` for each line that cannot be read, or for the file.
    """
    file = directory / f"{name}.jsonl"
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        wrong.append((file.name, error.strerror or repr(error)))
        return None
    decoder, lines = msgspec.json.Decoder(kind), []
    for number, text in enumerate(data.split(b"\n")[:-1], 1):
        try:
            line = decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            wrong.append((f"{file.name} line {number}", str(error)))
            continue
        line.file, line.number = file.name, number
        lines.append(line)
    return lines


def first_mentions(lines: Sequence[Any]) -> dict[str, int]:
    """Return each order's first mention in a ledger, in milliseconds since 1970."""
    first: dict[str, int] = {}
    for line in lines:
        first.setdefault(line.order, line.at_ms)
    return first
