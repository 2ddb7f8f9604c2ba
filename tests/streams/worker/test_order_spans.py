"""Spans of the steps of an order, with their parents."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from exactly_once import Record
from exactly_once.task.interfaces import StoreError
from processors.call_kinds import CallKind
from streams.calls.http_performer import ROWS, Answer, row_of
from streams.tracing.ids import context_of, root_of, trace_id
from streams.tracing.spans import Span, Tracing
from streams.worker import order_spans
from streams.worker.order_workflow import OrderWorkflow
from tests.exactly_once.fakes import FakeRecord
from tests.processors.cases import ORDER, RESTAURANT, placed
from tests.streams.fake_task import FakeTask
from tests.support.services import unconnected_services
from topics.pos import PreparationFinished, TicketAccepted

SENDER = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CHARGED = '{"charge_id": "c1", "amount": 630, "currency": "INR"}'


class World:
    """One worker's workflow on a task that commits at once."""

    def __init__(self, directory: Path, share: float = 1.0) -> None:
        (directory / "secret").write_text("s" * 32)
        self.task = FakeTask()
        self.spans: list[Span] = []
        services = unconnected_services(DABBAWALA_DIR=str(directory))
        self.workflow = OrderWorkflow(
            services.tables,
            services.parameters,
            "dabbawala",
            lambda call, span: row_of(call, "http://us", "bank", span),
            services.tokens.pseudonym,
            lambda: b"k" * 32,
            Tracing(share, self.spans.append),
        )

    def apply(self, event: Any, topic: str = "dabbawala.pos", traceparent: bytes = b"") -> None:
        record: Record = FakeRecord(topic=topic, timestamp=self.task.now_ms, headers=[("traceparent", traceparent)])
        self.workflow.apply_record(self.task.as_task(), ORDER, event, record, RESTAURANT)

    def answer(self, key: str, status: int, body: str, attempt: str = "00000000000000aa") -> None:
        result = msgspec.json.encode(Answer(status, body, attempt))
        self.workflow.call_answered(self.task.as_task(), key, self.task.requested[key], result)

    def edges(self) -> dict[str, str]:
        """Return the name of each span -> that of its parent."""
        names = {span.id: span.name for span in self.spans}
        return {span.name: names.get(span.parent or 0, "") for span in self.spans}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_first_step_is_the_root_and_links_the_sender(world: World) -> None:
    world.apply(placed(), "dabbawala.orders", SENDER)
    [root] = world.spans
    assert (root.order, root.id, root.parent, root.name) == (ORDER, root_of(ORDER), None, "order placed")
    assert root.links == (context_of(SENDER.decode()),)
    assert {headers["traceparent"] for headers in world.task.headers} == {
        f"00-{trace_id(ORDER):032x}-{root.id:016x}-01".encode()
    }
    assert ROWS.decode(world.task.requested[f"{ORDER}/charge"]).span == f"{root.id:016x}"


def test_a_repeated_order_makes_no_second_root(world: World) -> None:
    world.apply(placed(), "dabbawala.orders")
    world.apply(placed(), "dabbawala.orders")
    assert len(world.spans) == 1


def test_a_step_is_below_the_step_that_caused_it(world: World) -> None:
    world.apply(placed(), "dabbawala.orders")
    world.answer(f"{ORDER}/charge", 200, CHARGED)
    assert world.spans[-1].parent == 0xAA, "the last attempt"
    world.apply(TicketAccepted(order=ORDER))
    world.apply(PreparationFinished(order=ORDER))
    assert world.edges() == {
        "order placed": "",
        "answer Charged": "",
        "process TicketAccepted": "answer Charged",
        "process PreparationFinished": "process TicketAccepted",
    }


def test_a_strangers_trace_is_not_believed(world: World) -> None:
    world.apply(placed(), "dabbawala.orders")
    world.answer(f"{ORDER}/charge", 200, CHARGED)
    forged = f"00-{trace_id(ORDER):032x}-00000000000000ff-01".encode()
    world.apply(TicketAccepted(order=ORDER), traceparent=forged)
    assert world.edges()["process TicketAccepted"] == "answer Charged"


def test_a_timer_links_the_step_that_set_it(world: World) -> None:
    world.apply(placed(), "dabbawala.orders")
    world.task.now_ms += 1_000
    world.answer(f"{ORDER}/charge", 200, CHARGED)
    asked = world.spans[-1]
    name = next(timer for timer in world.task.timers if timer.endswith(b"-wait"))
    world.task.now_ms = world.task.timers.pop(name)
    world.workflow.timer_due(world.task.as_task(), name.decode())
    timer = world.spans[-1]
    assert (timer.name, timer.parent) == ("timer WaitTimedOut", root_of(ORDER))
    assert [link.span for link in timer.links] == [asked.id]
    assert timer.attributes["dabbawala.waited_ms"] == (timer.start_ns - asked.start_ns) // 1_000_000


def test_an_end_has_the_whole_duration(world: World) -> None:
    world.apply(placed(), "dabbawala.orders")
    world.task.now_ms += 7_000
    world.answer(f"{ORDER}/charge", 402, '{"status": "declined"}')
    step, ended = world.spans[-2:]
    assert (ended.name, ended.parent) == ("order ended", step.id)
    assert ended.attributes["dabbawala.duration_ms"] == 7_000
    assert ended.attributes["dabbawala.status"] == "REJECTED"


def test_a_refused_event_is_an_error(world: World) -> None:
    world.apply(placed(), "dabbawala.orders")
    world.apply(PreparationFinished(order=ORDER))
    refused = world.spans[-1]
    assert (refused.name, refused.error) == ("process PreparationFinished", "refused")
    assert refused.attributes["dabbawala.outcome"] == "REFUSED"


def test_a_span_that_fails_undoes_no_step(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.apply(placed(), "dabbawala.orders")
    monkeypatch.setattr(order_spans, "transitions", lambda _: [][0])
    world.answer(f"{ORDER}/charge", 200, CHARGED)
    assert f"{ORDER}/prepare" in world.task.requested, "the step is applied"
    assert len(world.spans) == 1


def test_a_disk_that_fails_breaks_the_task_all_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise StoreError("the disk is gone")

    world.apply(placed(), "dabbawala.orders")
    monkeypatch.setattr(order_spans, "transitions", fail)
    with pytest.raises(StoreError):
        world.answer(f"{ORDER}/charge", 200, CHARGED)


def test_an_order_that_is_not_sampled_stores_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, share=0.0)
    world.apply(placed(), "dabbawala.orders")
    assert not world.spans
    row = ROWS.decode(world.task.requested[f"{ORDER}/charge"])
    assert (row.kind, row.span) == (CallKind.CHARGE, "")
    assert b'"span"' not in world.task.requested[f"{ORDER}/charge"]
    assert world.task.headers[0]["traceparent"].endswith(b"-00")
