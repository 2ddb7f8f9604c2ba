"""The workflow inside a task: what leaves the workers with it."""

from pathlib import Path

from processors.call_kinds import CallKind
from processors.events import CallAnswered
from tests.processors.cases import ORDER, RESTAURANT, placed
from tests.streams.fake_task import FakeTask
from tests.support.services import unconnected_services
from topics.deliveries import DriverAssigned
from topics.order_updates import READER
from topics.pos import PreparationFinished


def test_updates_show_a_pseudonym_and_the_rows_the_driver(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s" * 32)
    services, task = unconnected_services(DABBAWALA_DIR=str(tmp_path)), FakeTask()
    charge = '{"charge_id": "c1", "amount": 630, "currency": "INR"}'
    for event in (
        placed(),
        CallAnswered(f"{ORDER}/charge", CallKind.CHARGE, 200, charge),
        PreparationFinished(order=ORDER),
        DriverAssigned(id="a", order=ORDER, driver="asha", attempt=1, eta_s=60),
    ):
        services.order_workflow.apply_and_store(task.as_task(), ORDER, event, RESTAURANT)
    topic, newest = task.emitted[-1]
    assert topic == "dabbawala.order-updates"
    assert READER.read(newest).driver == services.tokens.pseudonym(ORDER, "asha")
    assert b"asha" not in newest
    row = services.tables.orders.get(task.as_task(), ORDER)
    assert row is not None
    assert row.driver == "asha"
