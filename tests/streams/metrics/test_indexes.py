"""Counts of committed rows: orders by stage and attention, and what leaves a stage or ends."""

import msgspec
import pytest

from processors.events import OPERATOR, OrderPlaced
from processors.order import FINAL_STAGES, AttentionItem, Order, Stage, decide
from streams.metrics.indexes import OpenOrders, OrderRow, RowCount, call_kind, driver_state
from tests.processors.cases import NOW, RESTAURANT, P, placed


class Orders:
    """An index, and what it reported."""

    def __init__(self) -> None:
        self.placed = 0
        self.moves: list[tuple[OrderRow, OrderRow]] = []
        self.index = OpenOrders(self._count, lambda *move: self.moves.append(move))

    def _count(self) -> None:
        self.placed += 1

    def apply(self, order: Order | None, key: bytes = b"a:1") -> None:
        self.index.apply(key, None if order is None else msgspec.json.encode(order))

    def counts(self) -> tuple[dict[Stage, int], dict[str, int]]:
        """Return the numbers above 0."""
        return dict(+self.index.stages), dict(+self.index.attention)


def order(stage: Stage, since_ms: int = NOW, *waits: str) -> Order:
    created = decide(None, OrderPlaced(placed(), RESTAURANT), NOW, P).state
    assert created is not None
    attention = tuple(AttentionItem(wait, f"for {wait}", since_ms) for wait in waits)
    return msgspec.structs.replace(created, stage=stage, waits_since_ms=since_ms, attention=attention)


@pytest.fixture
def orders() -> Orders:
    return Orders()


def test_an_order_counts_in_its_stage_until_it_ends(orders: Orders) -> None:
    orders.apply(order(Stage.CREATED))
    assert (orders.placed, orders.counts()) == (1, ({Stage.CREATED: 1}, {}))
    orders.apply(order(Stage.ASKED, NOW + 700))
    assert orders.counts() == ({Stage.ASKED: 1}, {})
    orders.apply(order(Stage.DELIVERED, NOW + 1_000))
    assert orders.counts() == ({}, {})
    moves = [(before.stage, row.stage, row.waits_since_ms - before.waits_since_ms) for before, row in orders.moves]
    assert moves == [(Stage.CREATED, Stage.ASKED, 700), (Stage.ASKED, Stage.DELIVERED, 300)]


def test_a_change_within_a_stage_is_no_move(orders: Orders) -> None:
    orders.apply(order(Stage.ASKED))
    orders.apply(msgspec.structs.replace(order(Stage.ASKED), version=7))
    orders.apply(order(Stage.ASKED, NOW, "acceptance"))
    assert orders.moves == []
    assert (orders.placed, orders.counts()) == (1, ({Stage.ASKED: 1}, {"acceptance": 1}))


def test_attention_counts_also_after_the_end(orders: Orders) -> None:
    orders.apply(order(Stage.CREATED))
    orders.apply(order(Stage.REJECTED, NOW, "refund of ch-1", "refund of ch-2", OPERATOR))
    assert orders.counts() == ({Stage.REJECTED: 1}, {"refund": 2, "operator": 1})
    orders.apply(order(Stage.REJECTED, NOW, OPERATOR))
    assert orders.counts() == ({Stage.REJECTED: 1}, {"operator": 1})
    orders.apply(order(Stage.REJECTED))
    assert orders.counts() == ({}, {})
    assert len(orders.moves) == 1


def test_an_attention_that_replaces_another_counts(orders: Orders) -> None:
    orders.apply(order(Stage.ASKED, NOW, "acceptance"))
    orders.apply(order(Stage.ASKED, NOW, OPERATOR))
    assert orders.counts() == ({Stage.ASKED: 1}, {"operator": 1})


@pytest.mark.parametrize("stage", FINAL_STAGES)
def test_ended_orders_take_no_memory(orders: Orders, stage: Stage) -> None:
    orders.apply(order(stage))
    orders.apply(None)
    assert (orders.placed, orders.moves, orders.counts()) == (0, [], ({}, {}))
    assert orders.index._open == {}


def test_a_deleted_order_is_forgotten(orders: Orders) -> None:
    orders.apply(order(Stage.ASKED, NOW, "acceptance"))
    orders.apply(None)
    assert orders.counts() == ({}, {})


def test_a_restored_order_is_neither_new_nor_moved(orders: Orders) -> None:
    orders.index.load([(b"a:1", msgspec.json.encode(order(Stage.ASKED)))])
    assert (orders.placed, orders.moves, orders.counts()) == (0, [], ({Stage.ASKED: 1}, {}))


def test_rows_count_in_one_group() -> None:
    rows = RowCount(driver_state)
    rows.load([(b"d1", b'{"id":"d1","stage":"IDLE"}'), (b"d2", b'{"id":"d2","stage":"IDLE"}')])
    rows.apply(b"d1", b'{"id":"d1","stage":"DELIVERING, picked up"}')
    rows.apply(b"d2", None)
    rows.apply(b"d3", None)
    assert +rows.counts == {"DELIVERING": 1}


@pytest.mark.parametrize(("key", "kind"), [(b"a:1/charge", "charge"), (b"a:1/refund/ch-1", "refund")])
def test_the_kind_of_a_call_is_in_its_key(key: bytes, kind: str) -> None:
    assert call_kind(key, b"") == kind


def test_rows_of_another_release_stop_no_task(orders: Orders) -> None:
    unknown = msgspec.json.encode({**msgspec.to_builtins(order(Stage.ASKED)), "stage": "PACKED"})
    orders.index.load([(b"a:0", unknown)])
    orders.apply(order(Stage.ASKED))
    orders.index.apply(b"a:1", unknown)
    assert orders.counts() == ({}, {}), "an order that cannot be read is not counted"
    for group_of in (call_kind, driver_state):
        rows = RowCount(group_of)
        rows.load([(b"no-slash", b'{"stage":"FLYING"}')])
        assert rows.counts == {"unknown": 1}
