"""The ledgers of the parties outside: append-only files of JSON lines, read by what is documented of them alone.

Fields that are not known here are passed over. A line that cannot be read is told of, and the others count. A last line
without its end is still being written.

| file | what a party wrote down |
|---|---|
| `payment.jsonl` | the payment provider: charges, refunds, and the callbacks that were answered |
| `pos.jsonl` | the restaurants: what became of each ticket |
| `trips.jsonl` | the drivers: from when to when each had which delivery |
| `answers.jsonl` | the ordering provider: what was placed, and what it was answered |
| `observers.jsonl` | who watched orders, `via` http or feed: which `status` was seen under which `version` |
| `poison.jsonl` | whoever put records on topics that nobody can apply: where they lie, and the `id` that is in them |

The fields of the first four are documented in `simulators/ledger.py`. Of the others, whose lines anybody may write:

`observers.jsonl`
    at, observer (who: one stream of looks), order, version, status, via (`http` or `feed`)
`poison.jsonl`
    at, topic, partition, offset (where the record lies), id (a text that no other one has in its key or value)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from topics.records import Instant, epoch_ms


class Line(msgspec.Struct, kw_only=True):
    """A line of a ledger, and where it is."""

    at: Instant
    file: str = msgspec.field(default="", name="(file)")  # a line may have a field of any name
    number: int = msgspec.field(default=0, name="(number)")

    @property
    def at_ms(self) -> int:
        """Milliseconds since 1970."""
        return epoch_ms(self.at)

    @property
    def where(self) -> str:
        """For people."""
        return f"{self.file} line {self.number}"


class PaymentLine(Line, kw_only=True):
    """What the payment provider did for a request; with `replay` only the same answer again."""

    key: str
    kind: str
    order: str
    outcome: str
    charge_id: str = ""
    amount: int = 0
    currency: str = ""
    replay: bool = False


class TicketLine(Line, kw_only=True):
    """What a restaurant did with a ticket."""

    event: str
    order: str
    key: str
    restaurant: str = ""
    told: str = ""
    status: int = 0


class TripLine(Line, kw_only=True):
    """What a driver did."""

    driver: str
    event: str
    delivery: str = ""


class AnswerLine(Line, kw_only=True):
    """What the ordering provider was answered."""

    event: str
    order: str
    via: str = "http"
    outcome: str = ""
    status: int = 0
    deliver_at: Instant | None = None


class ObserverLine(Line, kw_only=True):
    """What somebody saw of an order."""

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


KINDS: dict[str, type[Line]] = {
    "payment": PaymentLine,
    "pos": TicketLine,
    "trips": TripLine,
    "answers": AnswerLine,
    "observers": ObserverLine,
    "poison": PoisonLine,
}

L = TypeVar("L", bound=Line)


def read(directory: Path, name: str, kind: type[L], wrong: list[tuple[str, str]]) -> list[L] | None:
    """The lines of a ledger, oldest first; None where there is no such file, or none that can be read. ``wrong`` gets
    (where, why) for each line, or file, that cannot be read."""
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


def mentioned(lines: Sequence[Any]) -> dict[str, int]:
    """Order id -> when a ledger mentions it first, in milliseconds since 1970."""
    first: dict[str, int] = {}
    for line in lines:
        first.setdefault(line.order, line.at_ms)
    return first
