"""What is known from outside, as the checks are given it: what the topics hold and what the ledgers say."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from sys import intern
from typing import NamedTuple

from oracle.ledgers import AnswerLine, ObserverLine, PaymentLine, PoisonLine, TicketLine, TripLine
from topics.order_updates import Attention, OrderStatus, OrderUpdated
from topics.records import epoch_ms


class Where(NamedTuple):
    """The place of a record."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition} at {self.offset}"


class Period(NamedTuple):
    """What is judged, and by which moment. Times in milliseconds since 1970."""

    now_ms: int
    since_ms: int = 0
    """What began before is not judged: the topics keep it no longer, or nobody asked for it."""
    final: bool = False
    """The run is over: nothing may be under way any more."""
    patience_ms: int = 30_000
    """How late anything may be, on top of its own time."""
    speed_up: float = 1.0
    """What the waits are divided by; 0: a world without delays, whose waits are those of the real one."""

    def wait_ms(self, seconds: float) -> int:
        """How long something may take here."""
        return round(seconds * 1000 / (self.speed_up or 1.0))

    def overdue(self, due_ms: int) -> bool:
        """Whether what was due then should have come by now."""
        return self.final or self.now_ms > due_ms + self.patience_ms


class Told(NamedTuple):
    """One record on `order-updates`."""

    version: int
    status: OrderStatus
    at_ms: int
    """By the clock of the worker that said so."""
    where: Where
    restaurant: str = ""
    driver: str | None = None
    eta_ms: int | None = None
    refunded: bool = False
    attention: Attention | None = None

    @classmethod
    def of(cls, update: OrderUpdated, timestamp_ms: int, where: Where) -> "Told":
        """What a record says; ``timestamp_ms`` is Kafka's, where the record gives no time."""
        return cls(
            update.version,
            update.status,
            timestamp_ms if update.at is None else epoch_ms(update.at),
            where,
            intern(update.restaurant),  # the same few, a million times
            None if update.driver is None else intern(update.driver),
            None if update.eta is None else epoch_ms(update.eta),
            update.refunded,
            update.attention,
        )


class Order:
    """An order as it was told of, from its first update on. An id whose history is over may be used again: another
    life of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lives: list[list[Told]] = [[]]

    def add(self, told: Told) -> None:
        """The next update in its partition."""
        if told.version == 1 and self.told and self.told[-1].status.ended:
            self.lives.append([])
        self.told.append(told)

    @property
    def told(self) -> list[Told]:
        """Its updates in this life, in the order in which they lie on the topic."""
        return self.lives[-1]

    @property
    def newest(self) -> Told:
        """How it stands."""
        return self.told[-1]

    @property
    def end(self) -> OrderStatus | None:
        """How it ended; None: it has not."""
        return self.newest.status if self.newest.status.ended else None

    @property
    def since_ms(self) -> int:
        """Since when it is in its status."""
        newest = self.newest.status
        entered = self.newest
        for told in reversed(self.told):
            if told.status is not newest:
                break
            entered = told
        return entered.at_ms

    @property
    def reused(self) -> bool:
        """Whether its id has had several lives: a ledger does not tell them apart."""
        return len(self.lives) > 1

    def first(self, status: OrderStatus) -> Told | None:
        """The first update of this life with a status."""
        return next((told for told in self.told if told.status is status), None)


class Placing(NamedTuple):
    """A record on `orders` that places an order."""

    order: str
    at_ms: int
    where: Where
    total: int
    currency: str
    deliver_at_ms: int | None
    asked: bool
    """A view of ours has written it and waits for the decision: a refusal is its answer, and no dead letter."""


class Letter(NamedTuple):
    """A dead letter, and the record that it was."""

    where: Where
    origin: Where | None
    """None: it was none, but a timer or the answer to a call."""
    key: bytes
    value: bytes


class Move(NamedTuple):
    """What a driver's twin said: ``has`` a delivery from now on, or none."""

    driver: str
    at_ms: int
    where: Where
    has: str | None


class TimerRow(NamedTuple):
    """A timer that is set."""

    name: str
    due_ms: int
    where: Where


class Reached(NamedTuple):
    """How far a task has applied a source topic. ``last``: the offset of the last committed record there."""

    position: int
    last: int

    @property
    def behind(self) -> bool:
        """Whether there is something that it has not applied."""
        return self.last >= self.position


class Overtaken(NamedTuple):
    """A committed record of a producer that somebody had replaced by then."""

    where: Where
    producer: int
    epoch: int
    by_producer: int
    by_epoch: int
    by_where: Where


class Unreadable(NamedTuple):
    """What cannot be read, where, and why."""

    where: str
    why: str
    foreign: bool = False
    """It is a record that no transaction wrote, so no task did: whatever it says, it is nothing of ours."""


@dataclass
class Facts:
    """All of it. A ledger is None where nobody keeps it."""

    period: Period
    whole: bool = True
    """The topics still have everything that was ever said on them."""
    orders: dict[str, Order] = field(default_factory=dict)
    """Those whose beginning is there."""
    older: set[str] = field(default_factory=set)
    """Those whose beginning is not."""
    placings: dict[str, list[Placing]] = field(default_factory=lambda: defaultdict(list))
    letters: list[Letter] = field(default_factory=list)
    retired: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Order id -> when it has left for the history, of ids that were used again."""
    malformed: list[Where] = field(default_factory=list)
    """Records on source topics that are none of the topic's."""
    moves: list[Move] = field(default_factory=list)
    timers: dict[tuple[int, bytes], TimerRow] = field(default_factory=dict)
    """(partition, row's key) -> the timers that are set."""
    alive_ms: int = 0
    """When the newest row of any table was committed: a worker lived then."""
    reached: dict[tuple[str, int], Reached] = field(default_factory=dict)
    """(source topic, partition) -> how far it is applied."""
    stuck: set[tuple[str, int]] = field(default_factory=set)
    """Those that were as far before, with something left to apply."""
    stuck_s: float = 0.0
    """For how long they were looked at."""
    written: int = 0
    """How many batches of transactions were looked at for who wrote them."""
    overtaken: list[Overtaken] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    payments: list[PaymentLine] | None = None
    tickets: list[TicketLine] | None = None
    trips: list[TripLine] | None = None
    answers: list[AnswerLine] | None = None
    observers: list[ObserverLine] | None = None
    poison: list[PoisonLine] | None = None

    def judged(self) -> Iterator[Order]:
        """The orders that are judged by ledgers, too."""
        return (order for order in self.orders.values() if not order.reused)

    def is_older(self, order: str, first_ms: int) -> bool:
        """Whether an order that a ledger mentioned first at this time may have begun before what is judged."""
        return order in self.older or first_ms < self.period.since_ms
