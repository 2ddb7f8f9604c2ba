"""`dabbawala reconcile`: what it judges unless it is told otherwise, and what it says where it cannot."""

from pathlib import Path
from typing import Any

import pytest

from oracle import command
from oracle.facts import Unreadable
from oracle.findings import Violation
from oracle.report import Promise, Report
from streams.cli.__main__ import main

FINE = Report({"orders": 1}, (Promise(1, "no order is lost", 1, [], ""),), None, ())
BROKEN = (Promise(1, "no order is lost", 1, [Violation("p:o", "p:o is lost")], ""),)
UNREAD = Unreadable("pos.jsonl line 3", "it is no JSON")
STRANGE = Unreadable("dabbawala.order-updates/0 at 5", "it is no JSON", foreign=True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the oracle was asked; it finds nothing wrong."""
    found: dict[str, Any] = {}

    async def judge(kafka: str, prefix: str, **more: Any) -> Report:
        found.update(more, kafka=kafka, prefix=prefix)
        return FINE

    monkeypatch.setattr(command, "judge", judge)
    monkeypatch.setenv("DABBAWALA_DIR", str(tmp_path))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka-1:9092,kafka-2:9092")
    return found


def test_it_judges_the_installation_of_the_settings(
    asked: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["reconcile"]) == 0
    assert (asked["kafka"], asked["prefix"], asked["application"]) == (
        "kafka-1:9092,kafka-2:9092",
        "dabbawala",
        "dabbawala",
    )
    assert (asked["ledgers"], asked["speed_up"]) == (None, 1.0)
    assert "no order is lost" in capsys.readouterr().out
    (tmp_path / "ledgers").mkdir()
    monkeypatch.setenv("DABBAWALA_TOPIC_PREFIX", "p")
    monkeypatch.setenv("DABBAWALA_APPLICATION", "a")
    monkeypatch.setenv("DABBAWALA_SPEED_UP", "30")
    assert main(["reconcile"]) == 0
    assert (asked["prefix"], asked["application"]) == ("p", "a")
    assert (asked["ledgers"], asked["speed_up"]) == (tmp_path / "ledgers", 30.0)
    (tmp_path / "speed-up").write_text("120\n")
    assert main(["reconcile"]) == 0
    assert asked["speed_up"] == 30.0, "the demo's counts for less than the setting"
    monkeypatch.delenv("DABBAWALA_SPEED_UP")
    assert main(["reconcile"]) == 0
    assert asked["speed_up"] == 120.0
    assert "Judged as the demo ran here, 120 times as fast" in capsys.readouterr().err
    assert main(["reconcile", "--ledgers", str(tmp_path), "--speed-up", "2"]) == 0
    assert (asked["ledgers"], asked["speed_up"]) == (tmp_path, 2.0)


@pytest.mark.parametrize(
    ("report", "only", "status", "said"),
    [
        (FINE, "run-1", 0, ""),
        (FINE._replace(books={"orders": 0}), "", 0, ""),
        (FINE._replace(books={"orders": 0}), "run-1", 2, "no order with 'run-1' in its id began within what is judged"),
        (FINE._replace(unreadable=(UNREAD, STRANGE)), "", 2, "1 of what there is cannot be read"),
        (FINE._replace(unreadable=(STRANGE,)), "", 0, ""),
        (FINE._replace(promises=BROKEN, unreadable=(UNREAD,)), "", 1, ""),
    ],
)
def test_what_was_not_judged_is_not_taken_for_kept(
    asked: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    report: Report,
    only: str,
    status: int,
    said: str,
) -> None:
    async def judge(*_: Any, **__: Any) -> Report:
        return report

    monkeypatch.setattr(command, "judge", judge)
    assert main(["reconcile", "--only", only]) == status
    told = capsys.readouterr()
    assert said in told.err
    assert "no order is lost" in told.out, "the report is shown all the same"


def test_where_no_kafka_is_it_says_so_in_a_sentence(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS")
    assert main(["reconcile"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("No Kafka runs under ")
    assert told.err.count("\n") == 1
    assert not asked
