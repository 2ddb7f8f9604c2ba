"""`dabbawala reconcile`: the installation that it judges, its verdict, and its errors."""

from pathlib import Path
from typing import Any

import pytest

from oracle import cli as command
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
    """Return the arguments of the oracle, which finds every promise kept."""
    arguments: dict[str, Any] = {}

    async def judge(kafka: str, prefix: str, **more: Any) -> Report:
        arguments.update(more, kafka=kafka, prefix=prefix)
        return FINE

    monkeypatch.setattr(command, "judge", judge)
    monkeypatch.setenv("DABBAWALA_DIR", str(tmp_path))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka-1:9092,kafka-2:9092")
    return arguments


def test_settings_name_the_installation(
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
    assert (asked["ledgers"], asked["speed_up"], asked["unrecorded_speed"]) == (None, None, 1.0)
    shown = capsys.readouterr().out
    assert "no order is lost" in shown
    assert shown.endswith("Every promise that could be judged is kept.\n")
    (tmp_path / "ledgers").mkdir()
    monkeypatch.setenv("DABBAWALA_TOPIC_PREFIX", "p")
    monkeypatch.setenv("DABBAWALA_APPLICATION", "a")
    monkeypatch.setenv("DABBAWALA_SPEED_UP", "30")
    assert main(["reconcile"]) == 0
    assert (asked["prefix"], asked["application"]) == ("p", "a")
    assert asked["ledgers"] == tmp_path / "ledgers"
    assert (asked["speed_up"], asked["unrecorded_speed"]) == (None, 30.0)
    assert main(["reconcile", "--ledgers", str(tmp_path), "--speed-up", "2"]) == 0
    assert (asked["ledgers"], asked["speed_up"]) == (tmp_path, 2.0)


def test_verdict_names_the_broken_promises(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def judge(*_: Any, **__: Any) -> Report:
        return FINE._replace(promises=(*BROKEN, BROKEN[0]._replace(number=4)), speeds=(1.0, 120.0))

    monkeypatch.setattr(command, "judge", judge)
    assert main(["reconcile"]) == 1
    *_, speeds, verdict = capsys.readouterr().out.splitlines()
    assert speeds == "Waits are judged by the speed on record: 1x, 120x."
    assert verdict == "2 promises are broken: 1, 4."


@pytest.mark.parametrize(
    ("report", "only", "status", "message"),
    [
        (FINE, "run-1", 0, ""),
        (FINE._replace(books={"orders": 0}), "", 0, ""),
        (FINE._replace(books={"orders": 0}), "run-1", 2, "no order with 'run-1' in its id began in the judged period"),
        (FINE._replace(unreadable=(UNREAD, STRANGE)), "", 2, "1 of the records and ledger lines cannot be read"),
        (FINE._replace(unreadable=(STRANGE,)), "", 0, ""),
        (FINE._replace(promises=BROKEN, unreadable=(UNREAD,)), "", 1, ""),
    ],
)
def test_unjudged_promises_do_not_count_as_kept(
    asked: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    report: Report,
    only: str,
    status: int,
    message: str,
) -> None:
    async def judge(*_: Any, **__: Any) -> Report:
        return report

    monkeypatch.setattr(command, "judge", judge)
    assert main(["reconcile", "--only", only]) == status
    printed = capsys.readouterr()
    assert message in printed.err
    assert "no order is lost" in printed.out, "the report is shown all the same"


def test_missing_kafka_is_explained_in_one_sentence(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS")
    assert main(["reconcile"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("No Kafka runs under ")
    assert printed.err.count("\n") == 1
    assert not asked
