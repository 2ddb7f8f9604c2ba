"""Whether a world was sound: by what the parties wrote down and the topics hold, and by what every worker must agree on."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from streams.app import engine, order_updates
from tests import reconcile
from topics.order_updates import READER, OrderStatus, OrderUpdated

if TYPE_CHECKING:
    from tests.simulation.world import World


def updates(world: "World") -> list[OrderUpdated]:
    """The public feed."""
    return [READER.read(record.value) for record in world.broker.committed(order_updates)]


def statuses(world: "World") -> dict[str, str]:
    """Order -> its newest status."""
    return {update.order: update.status.value for update in updates(world)}


def accepted(world: "World") -> set[str]:
    """The orders that somebody was told are taken."""
    return {e.order for e in world.outside.answers if e.event == "answer" and e.outcome == "accepted"}


def all_ended(world: "World") -> bool:
    """Whether every order that was taken has ended, its refund included."""
    newest = {update.order: update for update in updates(world)}
    return all(order in newest and newest[order].status.ended for order in accepted(world)) and not waiting(world)


def waiting(world: "World") -> list[str]:
    """Calls without an answer, by the changelogs."""
    return [call for key in folded(world, "calls").values() for call in map(repr, key)]


def all_open(world: "World") -> bool:
    """Whether every partition is open in the worker that it was assigned to, and there alone."""
    for partition in range(world.plan.partitions):
        worker = world.front.workers.get(world.broker.owners.get(partition, ""))
        if worker is None or partition not in worker.engine.open_partitions():
            return False
    return all(
        set(worker.engine.tasks) == {p for p, owner in world.broker.owners.items() if owner == name}
        for name, worker in world.front.workers.items()
    )


def folded(world: "World", table: str) -> dict[int, dict[bytes, bytes]]:
    """Partition -> the rows of a table, by its changelog."""
    rows: dict[int, dict[bytes, bytes]] = {partition: {} for partition in range(world.plan.partitions)}
    for record in world.broker.committed(engine.changelogs[table]):
        assert record.key is not None
        if record.value is None:
            rows[record.partition].pop(record.key, None)
        else:
            rows[record.partition][record.key] = record.value
    return rows


def unfinished(world: "World") -> str:
    """Why a world goes on."""
    told = statuses(world)
    orders = {order: told.get(order, "unknown") for order in sorted(accepted(world))}
    return (
        f"orders {orders}, {world.provider.left} not answered, {world.outside.owed} callbacks owed, "
        f"calls {waiting(world)}, all open: {all_open(world)}"
    )


def judge(world: "World") -> list[str]:
    """What is wrong with a world that has ended."""
    outside, told = world.outside, statuses(world)
    wrong = [
        *reconcile.money(outside.payments, told),
        *reconcile.tickets(outside.tickets, told),
        *reconcile.trips(outside.trips),
        *reconcile.updates(updates(world)),
        *reconcile.answers(outside.answers, told),
        *_letters(world),
        *_waits(world),
        *_positions(world),
        *_stores(world),
        *_zombies(world),
    ]
    return wrong


def _letters(world: "World") -> list[str]:
    """What nobody can read is a dead letter, once; nothing else is, and nothing breaks down."""
    wrong: list[str] = []
    found: Counter[tuple[str, int, int]] = Counter()
    for letter in world.broker.committed(engine.dead_letters):
        headers = {name: value.decode() for name, value in letter.headers}
        reason = headers.get("dead-letter.reason", "")
        if "exception.class" in headers:
            wrong.append(f"applying broke down: {reason}")
        elif "origin.offset" in headers:
            found[headers["origin.topic"], int(headers["origin.partition"]), int(headers["origin.offset"])] += 1
    for place in world.outside.nonsense:
        if found[place] != 1:
            wrong.append(f"what nobody can read at {place} is {found[place]} dead letters")
    return wrong


WAITS_S = {
    OrderStatus.CREATED: 30.0,
    OrderStatus.IN_PREPARATION: 660.0,
    OrderStatus.SCHEDULING_DELIVERY: 300.0,
    OrderStatus.WAITING_FOR_DRIVER: 900.0,
    OrderStatus.IN_DELIVERY: 3600.0,
}
"""After which a person is to look."""
DOWN_S = 120.0
"""What workers may be down, and what it takes until their tasks are elsewhere."""


def _waits(world: "World") -> list[str]:
    """An order that has waited too long says so."""
    wrong: list[str] = []
    newest: dict[str, tuple[float, OrderUpdated]] = {}
    for update in updates(world):
        assert update.at is not None
        at_s = update.at.timestamp()
        if update.order in newest:
            since_s, before = newest[update.order]
            allowed_s = WAITS_S.get(before.status, float("inf")) + DOWN_S
            if before.attention is None and at_s - since_s > allowed_s:
                wrong.append(f"{update.order} was {before.status.value} for {at_s - since_s:.0f} s, and nobody was told")
        newest[update.order] = (at_s, update)
    return wrong


def _positions(world: "World") -> list[str]:
    """Positions only ever grow, and every record of a source was applied."""
    wrong: list[str] = []
    reached: dict[tuple[int, bytes], int] = {}
    for record in world.broker.committed(engine.changelogs["positions"]):
        assert record.key is not None
        assert record.value is not None
        at = (record.partition, record.key)
        if int(record.value) < reached.get(at, 0):
            wrong.append(f"task {at[0]} went back in {at[1].decode()}: from {reached[at]} to {int(record.value)}")
        reached[at] = int(record.value)
    for topic in engine.sources:
        for partition in range(world.plan.partitions):
            records, _ = world.broker.logs[topic, partition].read(0, 1 << 30)
            last = records[-1].offset + 1 if records else 0
            if reached.get((partition, topic.encode()), 0) < last:
                wrong.append(f"{topic}/{partition} has records up to {last}, {reached.get((partition, topic.encode()))} applied")
    return wrong


def _stores(world: "World") -> list[str]:
    """What lies on the owner's disk is what the changelogs say, row for row."""
    wrong: list[str] = []
    for table in engine.changelogs:
        for partition, rows in folded(world, table).items():
            worker = world.front.workers.get(world.broker.owners.get(partition, ""))
            task: Any = worker.engine.tasks.get(partition) if worker else None
            if task is not None and task.alive and dict(task._store.rows(table)) != rows:
                wrong.append(f"task {partition}: the table {table} is not what its changelog says")
    return wrong


def _zombies(world: "World") -> list[str]:
    """The epochs of a transactional id rise from commit to commit."""
    wrong: list[str] = []
    newest: dict[str, tuple[int, int]] = {}
    for _, transaction in world.broker.commits:
        epoch = (transaction.producer_id, transaction.epoch)
        if epoch <= newest.get(transaction.id, (-1, -1)):
            wrong.append(f"{transaction.id} committed with epoch {epoch} after {newest[transaction.id]}")
        newest[transaction.id] = epoch
    return wrong
