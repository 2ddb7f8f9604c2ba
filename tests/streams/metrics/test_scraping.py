"""The age of a lag, and the metrics of a worker without tasks."""

from pathlib import Path

import pytest

from exactly_once import SourceProgress
from exactly_once.task.observer import Commit
from exactly_once.task.transaction import PendingTransaction
from streams.access.keys import Role
from streams.metrics import scraping
from streams.metrics.instruments import Instruments
from streams.metrics.observed import TaskMetrics
from streams.metrics.scraping import LagAge
from tests.support.keys import KEYS
from tests.support.served import served


def test_a_lag_is_as_old_as_the_first_record_not_applied() -> None:
    age = LagAge()
    assert age.age_s(0, SourceProgress(5, 5, 0)) == 0
    assert age.age_s(10, SourceProgress(5, 8, 3)) == 0
    assert age.age_s(20, SourceProgress(7, 9, 2)) == 10, "the record at 7 was there at 10"
    assert age.age_s(30, SourceProgress(8, 9, 1)) == 10, "the record at 8 was first seen at 20"
    assert age.age_s(40, SourceProgress(9, 9, 0)) == 0


def test_markers_at_the_end_are_no_lag() -> None:
    age = LagAge()
    assert age.age_s(0, SourceProgress(5, 6, 0)) == 0
    assert age.age_s(9, SourceProgress(5, 6, 0)) == 0


def test_a_long_lag_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraping, "MAX_SAMPLES", 10)
    age = LagAge()
    ages = [age.age_s(second, SourceProgress(0, second + 1, second + 1)) for second in range(100)]
    assert ages == list(range(100))
    assert len(age._ends) <= 10


async def test_metrics_need_the_key_of_a_monitor(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        for role, status in [(Role.MONITOR, 200), (Role.OPERATOR, 200), (Role.PROVIDER, 403)]:
            answer = await client.get("/metrics", headers={"Authorization": f"Bearer {KEYS[role]}"})
            assert answer.status_code == status, role
        assert (await client.get("/metrics", headers={"Authorization": ""})).status_code == 401


async def test_requests_are_measured_by_route_and_status(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        for path in ("/livez", "/v1/orders/a:1", "/nowhere/1", "/nowhere/2"):
            await client.get(path)
        await client.request("PROPFIND", "/livez")
        text = (await client.get("/metrics")).text
    name = "http_server_request_duration_seconds_count"
    for labels in (
        '{http_request_method="GET",http_response_status_code="200",http_route="/livez"} 1.0',
        '{http_request_method="GET",http_response_status_code="503",http_route="/v1/orders/{order}"} 1.0',
        '{http_request_method="GET",http_response_status_code="404",http_route=""} 2.0',
        '{http_request_method="_OTHER",http_response_status_code="405",http_route=""} 1.0',
    ):
        assert name + labels in text


def test_dead_letters_count_by_their_origin() -> None:
    instruments = Instruments()
    observed = TaskMetrics(instruments, "dead")
    changes = PendingTransaction([])
    for headers in ([("origin.topic", b"orders")], [("origin.timer", b"t")], [("origin.call", b"c")]):
        changes.emit("dead", 3, (None, None, headers), 0)
        changes.count("dead_letters")
    observed.committed(Commit(3, changes, 0.1, 0, None))
    [family] = instruments.letters.collect()
    assert {s.labels["origin"]: s.value for s in family.samples} == {"orders": 1, "timer": 1, "call": 1}
