"""Facts that the checks judge: the contents of the topics and of the ledgers."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from sys import intern
from typing import NamedTuple

from oracle.ledgers import AnswerLine, IntrusionLine, ObserverLine, PaymentLine, PoisonLine, TicketLine, TripLine
from oracle.speeds import Speeds
from topics.order_updates import Attention, OrderStatus, OrderUpdated
from topics.records import epoch_ms


class Location(NamedTuple):
    """Position of a record."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition} at {self.offset}"


class Period(NamedTuple):
    """Period to judge. Times are in milliseconds since 1970."""

    now_ms: int
    since_ms: int = 0
    """Start of the period. Orders that began before are not judged: they have expired, or ``--since`` excludes them."""
    final: bool = False
    """True if the run is over: nothing may be in progress any more."""
    patience_ms: int = 30_000
    """Tolerance, in addition to each wait."""

    def overdue(self, due_ms: int) -> bool:
        """Return whether an event that was due at this time is overdue."""
        return self.final or self.now_ms > due_ms + self.patience_ms


class Update(NamedTuple):
    """A record on `order-updates`."""

    version: int
    status: OrderStatus
    at_ms: int
    """Time of the update by the worker's clock."""
    where: Location
    restaurant: str = ""
    driver: str | None = None
    eta_ms: int | None = None
    refunded: bool = False
    attention: Attention | None = None

    @classmethod
    def of(cls, update: OrderUpdated, timestamp_ms: int, where: Location) -> "Update":
        """Return the update in a record. ``timestamp_ms``, of Kafka, is used if the record contains no time."""
        return cls(
            update.version,
            update.status,
            timestamp_ms if update.at is None else epoch_ms(update.at),
            where,
            intern(update.restaurant),  # a few names in millions of updates
            None if update.driver is None else intern(update.driver),
            None if update.eta is None else epoch_ms(update.eta),
            update.refunded,
            update.attention,
        )


class Order:
    """The updates of an order id. A provider may use an id again after the order has retired: that is another life."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lives: list[list[Update]] = [[]]

    def add(self, update: Update) -> None:
        """Add the next update in the order's partition."""
        if update.version == 1 and self.updates and self.updates[-1].status.ended:
            self.lives.append([])
        self.updates.append(update)

    @property
    def updates(self) -> list[Update]:
        """Updates of the current life, in the order of the topic."""
        return self.lives[-1]

    @property
    def newest(self) -> Update:
        """Newest update."""
        return self.updates[-1]

    @property
    def end(self) -> OrderStatus | None:
        """Final status; None if the order has not ended."""
        return self.newest.status if self.newest.status.ended else None

    @property
    def since_ms(self) -> int:
        """Time at which the order entered its status, in milliseconds since 1970."""
        newest = self.newest.status
        entered = self.newest
        for update in reversed(self.updates):
            if update.status is not newest:
                break
            entered = update
        return entered.at_ms

    @property
    def reused(self) -> bool:
        """True if the id has had several lives, which a ledger does not distinguish."""
        return len(self.lives) > 1

    def first(self, status: OrderStatus) -> Update | None:
        """Return the first update of the current life with this status."""
        return next((update for update in self.updates if update.status is status), None)


class Placing(NamedTuple):
    """A record on `orders` that places an order."""

    order: str
    at_ms: int
    where: Location
    total: int
    currency: str
    deliver_at_ms: int | None
    awaited: bool
    """True if a view wrote the record and awaits the decision: a refusal is an answer then, and not a dead letter."""


class DeadLetter(NamedTuple):
    """A dead letter and the location of the original record."""

    where: Location
    origin: Location | None
    """None if the dead letter was a timer or the answer to a call."""
    key: bytes
    value: bytes


class DriverMove(NamedTuple):
    """A change of a driver's delivery, recorded by the driver's state machine."""

    driver: str
    at_ms: int
    where: Location
    delivery: str | None
    """Delivery that the driver has from now on, or None."""


class TimerRow(NamedTuple):
    """A row of a timer."""

    name: str
    due_ms: int
    where: Location


class SourceProgress(NamedTuple):
    """Progress of a task in a partition of a source topic."""

    position: int
    """Offset of the next record to apply."""
    last: int
    """Offset of the last committed record."""

    @property
    def behind(self) -> bool:
        """True if committed records are left to apply."""
        return self.last >= self.position


class StaleWrite(NamedTuple):
    """A committed batch of a producer that another one, or a later epoch, had already replaced."""

    where: Location
    producer: int
    epoch: int
    by_producer: int
    by_epoch: int
    by_where: Location


class Unreadable(NamedTuple):
    """A record or ledger line that cannot be read, with the reason."""

    where: str
    why: str
    foreign: bool = False
    """True for a record outside any transaction: a stranger wrote it, because tasks write in transactions."""


@dataclass
class Facts:
    """All facts. A ledger is None if it does not exist."""

    period: Period
    speeds: Speeds = field(default_factory=Speeds)
    whole: bool = True
    """True if `order-updates` still has its beginning."""
    orders: dict[str, Order] = field(default_factory=dict)
    """Order id -> order, for the orders with their first update."""
    older: set[str] = field(default_factory=set)
    """Ids of the orders whose first update has expired."""
    placings: dict[str, list[Placing]] = field(default_factory=lambda: defaultdict(list))
    dead_letters: list[DeadLetter] = field(default_factory=list)
    retired: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Order id -> times at which it retired, in milliseconds since 1970; only for ids that were used again."""
    malformed: list[Location] = field(default_factory=list)
    """Locations of the records on source topics that are no records of their topic."""
    moves: list[DriverMove] = field(default_factory=list)
    timers: dict[tuple[int, bytes], TimerRow] = field(default_factory=dict)
    """(partition, key of the row) -> timer."""
    alive_ms: int = 0
    """Time of the newest committed row of any table, which shows that a worker ran. In milliseconds since 1970."""
    reached: dict[tuple[str, int], SourceProgress] = field(default_factory=dict)
    """(source topic, partition) -> progress."""
    stuck: set[tuple[str, int]] = field(default_factory=set)
    """(source topic, partition) pairs with records left to apply and no progress during the look."""
    stuck_s: float = 0.0
    """Duration of the look at the stuck partitions, in seconds."""
    written: int = 0
    """Number of transactional batches whose producers were checked."""
    stale_writes: list[StaleWrite] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    payments: list[PaymentLine] | None = None
    tickets: list[TicketLine] | None = None
    trips: list[TripLine] | None = None
    answers: list[AnswerLine] | None = None
    observers: list[ObserverLine] | None = None
    intrusions: list[IntrusionLine] | None = None
    poison: list[PoisonLine] | None = None

    def wait_ms(self, seconds: float, from_ms: int, to_ms: int) -> int | None:
        """Return the length in milliseconds of a wait of ``seconds`` real seconds, at the speed in force.

        ``from_ms`` and ``to_ms`` are the begin and end of the order's life. Returns None if several speeds were in
        force between them, or one without a record. At speed 0 simulators do not delay, but waits take real time.
        """
        speeds = self.speeds.between(from_ms, to_ms)
        return round(seconds * 1000 / (speeds.pop() or 1.0)) if len(speeds) == 1 else None

    def overdue_by_work(self, due_ms: int) -> bool:
        """Return whether an event is overdue although a worker had time to act on it, as a later commit shows."""
        return self.period.overdue(due_ms) and (self.period.final or self.alive_ms > due_ms + self.period.patience_ms)

    def judged(self) -> Iterator[Order]:
        """Iterate over the orders that ledgers can judge: those whose id was used once."""
        return (order for order in self.orders.values() if not order.reused)

    def is_older(self, order: str, first_ms: int) -> bool:
        """Return whether an order may have begun before the period; ``first_ms`` is its first mention in a ledger."""
        return order in self.older or first_ms < self.period.since_ms
