"""The output of the commands, as tables and as JSON, and their exit codes."""

import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console

from exactly_once import ConfigMismatch
from streams.cli import output, topics
from streams.cli.__main__ import program
from streams.cli.registry import COMMANDS
from tests.streams.cli.conftest import Asked, FakeWorker, Run, problem
from tests.support.stack import FAUST, ROOT, run_command
from topics.text import plain_lines

AT = "2026-01-02T03:04:05Z"


def an_order(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"my-shop:{name}",
        "display_number": "",
        "status": "IN_DELIVERY",
        "version": 6,
        "restaurant": "ballard-slice",
        "reason": "",
        "refunded": False,
        "driver": "ravi",
        "eta": AT,
        "eta_s": 60,
        "late": False,
        "attention": None,
        "placed_at": AT,
        "updated_at": AT,
        "total": 90000,
        "currency": "INR",
        "payment": {"status": "CHARGED"},
        "ticket": {"status": "FINISHED"},
        "delivery": {"status": "PICKED_UP", "attempt": 1},
    } | changes


DRIVER = {
    "driver": "ravi",
    "status": "DELIVERING",
    "shift": 2,
    "region": "fort",
    "position": {"lat": 18.9, "lon": 72.8},
    "delivery": "my-shop:1",
    "picked_up": True,
}
LETTER = {
    "letter": "3/17",
    "at": AT,
    "origin": "dabbawala.orders/3 at 5",
    "reason": "/total: the total is wrong",
    "not_replayable": None,
    "key": {"text": "my-shop:1"},
}
TASK = {
    "partition": 0,
    "state": "open",
    "worker": "http://w",
    "lag": 0,
    "commits": 4,
    "resets": 0,
    "calls": 1,
    "backlog": 0,
    "topics": {"dabbawala.orders": {"next": 7, "end": 8, "lag": 0}},
}
PARTY = {
    "party": "ballard-slice http://pos/restaurants/ballard-slice/prepare",
    "host": "pos",
    "state": "open",
    "running": 0,
    "waiting": 3,
    "window": 1,
    "failures": 6,
    "silent_s": 0.0,
    "tried_in_s": 4.2,
    "last_error": "http://pos/restaurants/ballard-slice/prepare: status 500",
    "worker": "http://w",
}
ACTION = {
    "id": "5d4f",
    "at": AT,
    "by": "local-operator",
    "role": "operator",
    "action": "POST /v1/calls/my-shop:1/charge/retry",
    "thing": "my-shop:1",
    "reason": "the bank is open again, after the night of its upgrade",
    "address": "127.0.0.1",
    "outcome": "APPLIED",
}
READING = ACTION | {"action": "GET /table/bodies/my-shop:1", "thing": "bodies/my-shop:1", "outcome": "READ"}
READ_COMMANDS: dict[str, tuple[str, Any, tuple[str, ...]]] = {
    "orders list": ("/v1/orders", {"orders": [an_order("1")], "next": None}, ("my-shop:1", "IN_DELIVERY", "ravi")),
    "orders get my-shop:1": (
        "/v1/orders/my-shop:1",
        an_order("1"),
        ("INR 900.00", "late by", "CHARGED", "PICKED_UP"),
    ),
    "orders get my-shop:2": (
        "/v1/orders/my-shop:2",
        an_order("2", retired_at=AT, reason="payment_declined"),
        ("moved to the history", "2026-01-02", "payment declined"),
    ),
    "orders journal my-shop:2": (
        "/v1/orders/my-shop:2/journal",
        {"order": "my-shop:2", "entries": [], "retired_at": AT},
        ("moved from the tables to the history at 2026-01-02",),
    ),
    "orders journal my-shop:1": (
        "/v1/orders/my-shop:1/journal",
        {"order": "my-shop:1", "entries": [{"seq": 1, "at": AT, "machine": "order", "event": "OrderPlaced"}]},
        ("OrderPlaced",),
    ),
    "catalogue get ballard-slice": (
        "/v1/restaurants/ballard-slice",
        {
            "id": "ballard-slice",
            "name": "Ballard Slice",
            "region": "fort",
            "open": True,
            "position": {"lat": 18.9, "lon": 72.8},
            "pos_url": "http://pos/ballard-slice",
            "preparation_s": 720,
            "time_zone": "Asia/Kolkata",
            "hours": {"friday": [{"opens": "11:30", "closes": "15:00"}, {"opens": "18:00", "closes": "01:00"}]},
            "currency": "INR",
            "menu": [
                {
                    "pos_code": "BS-01",
                    "name": "Pizza",
                    "unit_price": 32000,
                    "available": False,
                    "modifiers": [{"pos_code": "X", "name": "Cheese", "price": 4000}],
                }
            ],
        },
        ("18:00 to 01:00", "Asia/Kolkata", "BS-01", "sold out", "INR 320.00", "X Cheese INR 40.00"),
    ),
    "drivers list": ("/v1/drivers", {"drivers": [DRIVER], "next": None}, ("ravi", "DELIVERING", "fort", "18.90000")),
    "drivers get ravi": ("/v1/drivers/ravi", DRIVER, ("DELIVERING", "my-shop:1")),
    "regions get fort": (
        "/v1/regions/fort",
        {
            "region": "fort",
            "drivers_waiting": 1,
            "deliveries_pending": 1,
            "drivers": [{"driver": "asha", "shift": 1, "position": {"lat": 1.0, "lon": 2.0}}],
            "deliveries": [{"delivery": "my-shop:9", "restaurant": "b", "attempt": 1, "since": AT}],
        },
        ("1 free driver, 1 delivery without a driver", "asha", "my-shop:9"),
    ),
    "timers list": (
        "/v1/timers",
        {"timers": [{"timer": "my-shop:1/start", "due": AT, "payload": "order", "partition": 2}], "next": None},
        ("my-shop:1/start",),
    ),
    "calls list": (
        "/v1/calls",
        {
            "calls": [
                {
                    "key": "my-shop:1/charge",
                    "order": "my-shop:1",
                    "kind": "charge",
                    "url": "http://bank/v1/charges",
                    "attempts": 3,
                    "next_attempt": AT,
                    "last_error": "status 500",
                    "held_back": "its party failed 5 times in a row and is not called for 4 s",
                }
            ],
            "next": None,
        },
        ("my-shop:1/charge", "http://bank", "status 500", "is not called for 4 s"),
    ),
    "parties": ("/v1/parties", {"parties": [PARTY]}, ("ballard-slice http://pos", "open", "in 4 s", "status 500")),
    "tasks": ("/v1/tasks", {"workers": [], "tasks": [TASK]}, ("open", "http://w")),
    "audit": ("/v1/audit", {"actions": [ACTION, READING]}, ("local-operator", "retry", "read", "APPLIED", "the bank")),
    "dead-letters list": ("/v1/dead-letters", {"dead_letters": [LETTER], "next": None}, ("3/17", "/total")),
    "dead-letters show 3/17": (
        "/v1/dead-letters/3/17",
        {**LETTER, "value": {"base64": "//4="}, "headers": [{"name": "note", "value": {"text": "[bold]mine"}}]},
        ("base64: //4=", "header note", "[bold]mine"),
    ),
}
"""Command line -> path, answer, texts in the table."""


@pytest.mark.parametrize("line", READ_COMMANDS)
def test_read_commands_print_tables(worker: FakeWorker, run: Run, line: str) -> None:
    path, answer, shown = READ_COMMANDS[line]
    worker.says(path, answer)
    done = run(*line.split())
    assert done.status == 0
    assert not [line for line in done.error.splitlines() if not line.startswith("Next: dabbawala ")]
    assert not [text for text in shown if text not in done.printed], done.printed
    assert "\x1b" not in done.printed, "no colours in a pipe"


@pytest.mark.parametrize("line", READ_COMMANDS)
def test_json_is_that_of_the_api(worker: FakeWorker, run: Run, line: str) -> None:
    path, answer, _ = READ_COMMANDS[line]
    worker.says(path, answer)
    done = run(*line.split(), "--json")
    assert (done.status, done.error) == (0, "")
    assert json.loads(done.printed) == answer


IN_A_TERMINAL: dict[str, tuple[str, dict[str, Any], int, tuple[str, ...]]] = {
    "orders list": (
        "/v1/orders",
        {
            "next": None,
            "orders": [
                an_order("demo-0000123", status="SCHEDULING_DELIVERY"),
                an_order("1", attention={"waits_for": f"the refund of ch_{'0' * 20}: a second charge", "since": AT}),
            ],
        },
        80,
        (
            "my-shop:demo-0000123  SCHEDULING_DELIVERY  ballard-slice  ravi",
            f"person: waiting for the refund of ch_{'0' * 20}",
        ),
    ),
    "orders journal my-shop:1": (
        "/v1/orders/my-shop:1/journal",
        {
            "entries": [
                {"seq": 1, "at": AT, "machine": "payment", "event": "Charged", "before": "DUE", "after": "CHARGED"},
                {"seq": 2, "at": AT, "machine": "order", "event": "DeliveryEtaChanged", "outcome": "REFUSED"}
                | {"reason": "a sentence of several words, which stay whole, because they move below the line"},
            ]
        },
        80,
        (
            "payment  Charged             DUE →",
            "    reason: a sentence of several words, which stay whole,",
        ),
    ),
    "drivers list": (
        "/v1/drivers",
        {"drivers": [DRIVER, DRIVER | {"driver": "driver-0001", "status": "WAITING_FOR_WORK"}], "next": None},
        80,
        ("driver-0001  WAITING_FOR_WORK  fort    18.90000 72.80000  my-shop:1  yes",),
    ),
    "audit": (
        "/v1/audit",
        {"actions": [ACTION, READING]},
        80,
        ("local-operator  retry  my-shop:1", "    reason: the bank is open again, after the night"),
    ),
    "drivers get ravi": ("/v1/drivers/ravi", DRIVER | {"region": "north " * 20}, 60, ("region     north north",)),
}
"""Command line -> path, answer, width of the terminal, texts that stay unbroken."""


@pytest.mark.parametrize("line", IN_A_TERMINAL)
def test_narrow_terminal_breaks_no_word(
    worker: FakeWorker, run: Run, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    path, answer, width, seen = IN_A_TERMINAL[line]
    monkeypatch.setattr(output, "Console", partial(Console, width=width, force_terminal=True, color_system=None))
    worker.says(path, answer)
    printed = run(*line.split()).printed
    assert not [text for text in seen if text not in printed], printed
    assert max(map(len, printed.splitlines())) <= width, printed


def test_pipe_has_whole_lines_of_any_length(worker: FakeWorker, run: Run) -> None:
    reason = "a word " * 400 + "ends"
    worker.says("/v1/orders/my-shop:1", an_order("1", reason=reason))
    assert reason in run("orders", "get", "my-shop:1").printed
    attention = {"waits_for": reason, "since": AT}
    worker.says("/v1/orders", {"orders": [an_order("1", attention=attention)], "next": None})
    assert reason in run("orders", "list").printed


def test_empty_columns_and_fields_are_left_out(worker: FakeWorker, run: Run) -> None:
    worker.says("/v1/orders", {"orders": [an_order("1", eta=None)], "next": None})
    printed = run("orders", "list").printed
    assert "ETA" not in printed
    assert "needs a person" not in printed
    worker.says("/v1/restaurants", {"restaurants": []})
    assert run("catalogue", "list").printed.split() == ["restaurants", "id", "name", "region", "open"]
    worker.says("/v1/orders/my-shop:1", an_order("1", eta=None))
    printed = run("orders", "get", "my-shop:1").printed
    assert "ETA" not in printed
    assert "moved to the history" not in printed


def test_times_have_a_date_and_a_zone() -> None:
    now = datetime.now(UTC)
    assert output.when(now.isoformat()).plain == f"{now.astimezone():%Y-%m-%d %H:%M:%S %z}"


def test_attention_is_a_sentence_with_the_next_command(worker: FakeWorker, run: Run) -> None:
    now = datetime.now(UTC)
    attention = {
        "waits_for": "the restaurant's answer",
        "since": (now - timedelta(days=3)).isoformat(),
        "call": {
            "key": "my-shop:1/prepare",
            "next_attempt": (now + timedelta(days=4, hours=12)).isoformat(),
            "last_error": "status 500",
        },
    }
    row = an_order("1", attention=attention)
    worker.says("/v1/orders", {"orders": [row], "next": None})
    done = run("orders", "list", "--attention")
    assert "no answer from the restaurant for 3 days" in done.printed
    assert "next attempt in 4 days; `dabbawala calls retry my-shop:1/prepare`" in done.printed
    worker.says("/v1/orders/my-shop:1", row)
    done = run("orders", "get", "my-shop:1")
    assert "my-shop:1/prepare" in done.printed
    assert done.error == "Next: dabbawala calls retry my-shop:1/prepare\n"


def test_journal_folds_changes_of_the_eta(worker: FakeWorker, run: Run) -> None:
    events = ["OrderPlaced", "DriverFound", *["EtaChanged", "DeliveryEtaChanged"] * 8, "PickedUp", "EtaChanged"]
    entries = [{"seq": n, "at": AT, "machine": "order", "event": event} for n, event in enumerate(events, 1)]
    worker.says("/v1/orders/my-shop:1/journal", {"order": "my-shop:1", "entries": entries})
    folded = run("orders", "journal", "my-shop:1").printed
    assert "EtaChanged x16" in folded
    assert len(folded.splitlines()) == 2 + 5
    assert len(run("orders", "journal", "my-shop:1", "--all").printed.splitlines()) == 2 + len(events)


def test_options_become_query_parameters(worker: FakeWorker, run: Run) -> None:
    worker.says("/v1/orders", {"orders": [an_order("1")], "next": "my-shop:1"})
    line = "--status created --provider my-shop --restaurant ballard-slice --attention --limit 1 --cursor a:b"
    done = run("orders", "list", *line.split())
    assert worker.asked[0].query == {
        "status": "CREATED",
        "provider": "my-shop",
        "restaurant": "ballard-slice",
        "attention": "true",
        "sort": "newest",
        "limit": "1",
        "cursor": "a:b",
    }
    assert "--cursor 'my-shop:1'" in done.error, "the next page is named"


def test_all_reads_every_page(worker: FakeWorker, run: Run) -> None:
    def page(asked: Asked) -> dict[str, Any]:
        first = int(asked.query.get("cursor", "my-shop:0").partition(":")[2]) + 1
        return {"orders": [an_order(str(first))], "next": f"my-shop:{first}" if first < 4 else None}

    worker.says("/v1/orders", page)
    done = run("orders", "list", "--all", "--json")
    assert [row["id"] for row in json.loads(done.printed)["orders"]] == [f"my-shop:{n}" for n in range(1, 5)]


def test_empty_list_is_no_error(worker: FakeWorker, run: Run) -> None:
    worker.says("/v1/orders", {"orders": [], "next": None})
    assert run("orders", "list") == (0, "", "No orders match.\n")
    worker.says("/v1/parties", {"parties": []})
    assert run("parties") == (0, "", "No destination is being called, and none has failed.\n")


def test_empty_table_is_no_error(worker: FakeWorker) -> None:
    worker.says("/table/orders/", {"table": "orders", "rows": []})
    command = [FAUST, "-A", "streams.app", "table", "orders"]
    assert run_command(command, {"PYTHONPATH": str(ROOT)}) == (0, "", "Table orders is empty.\n")


def test_table_has_whole_rows_and_a_missing_row_exits_with_1(worker: FakeWorker) -> None:
    row = {"note": "n" * 300, "version": 7}
    worker.says("/table/orders/my-shop:1", {"rows": [{"partition": 3, "key": "my-shop:1", "row": row}]})
    worker.says("/table/orders/my-shop:2", {"rows": []})
    command = [FAUST, "-A", "streams.app", "table", "orders"]
    done = run_command([*command, "my-shop:1"], {"PYTHONPATH": str(ROOT)})
    assert (done[0], json.dumps(row) in done[1]) == (0, True), done
    gone = run_command([*command, "my-shop:2"], {"PYTHONPATH": str(ROOT)})
    assert gone == (1, "", "Table orders has no row of 'my-shop:2'.\n")


def test_topics_are_whole_in_a_pipe(run: Run) -> None:
    printed = run("topics", "list").printed
    assert "…" not in printed
    assert "cleanup.policy=compact" in printed


def test_missing_order_exits_with_1_and_a_sentence(worker: FakeWorker, run: Run) -> None:
    worker.says("/v1/orders/my-shop:1", problem(404, "there is no order my-shop:1 here"))
    assert run("orders", "get", "my-shop:1") == (1, "", "There is no order my-shop:1 here.\n")


def test_closed_partition_exits_with_1(worker: FakeWorker, run: Run) -> None:
    worker.says("/v1/tasks", {"workers": [], "tasks": [TASK, {"partition": 1, "state": "restoring", "worker": "w"}]})
    done = run("tasks")
    assert done.status == 1
    assert "restoring" in done.printed
    assert run("tasks", "--json").status == 1
    assert "dabbawala.orders" in run("tasks", "--topics").printed


def test_held_partition_has_a_reason(worker: FakeWorker, run: Run) -> None:
    why = "this machine's clock is 3600.0 s ahead of the broker's"
    held = [{"partition": number, "state": "held", "worker": "w", "why": why} for number in (1, 2)]
    worker.says("/v1/tasks", {"workers": [], "tasks": [TASK, *held]})
    done = run("tasks")
    assert (done.status, done.error) == (1, f"Held: {why}.\n")
    assert done.printed.count("held") == 2


def test_hashes_are_requested_and_shown(worker: FakeWorker, run: Run) -> None:
    worker.says("/v1/tasks", {"workers": [], "tasks": [{**TASK, "hash": "3ac1"}]})
    assert "3ac1" in run("tasks", "--hash").printed
    assert worker.asked[0].query == {"hash": "true"}
    assert "3ac1" not in run("tasks").printed
    assert worker.asked[1].query == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("orders get nonsense", "provider:external-id"),
        ("orders get", "Missing argument"),
        ("orders lst", "No such command"),
        ("orders list --status lost", "--status"),
        ("orders list --limit 0", "--limit"),
        ("dead-letters show 17", "PARTITION/OFFSET"),
        ("calls retry charge", "ORDER/charge"),
        ("orders place /nowhere/order.json", "No such file"),
    ],
)
def test_invalid_command_line_exits_with_2_and_a_sentence(run: Run, line: str, message: str) -> None:
    done = run(*line.split())
    assert (done.status, done.printed) == (2, "")
    assert message in done.error
    assert len(done.error.splitlines()) == 1


def test_request_is_repeated_until_the_worker_is_ready(worker: FakeWorker, run: Run) -> None:
    worker.says("/v1/orders/my-shop:1", problem(503, "partition 1 is being opened; try again"), an_order("1"))
    assert run("orders", "get", "my-shop:1").status == 0
    assert len(worker.asked) == 2


def test_missing_worker_gives_the_command_to_start_one(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DABBAWALA_URL", raising=False)
    monkeypatch.setenv("DABBAWALA_DIR", str(tmp_path))
    done = run("orders", "list")
    assert (done.status, done.printed) == (2, "")
    assert "`make worker`" in done.error
    monkeypatch.setenv("DABBAWALA_URL", "http://127.0.0.1:1")
    assert "is the worker running?" in run("orders", "list").error


@pytest.mark.parametrize(
    ("name", "value", "command"),
    [
        ("DABBAWALA_PARTITIONS", "many", "tasks"),
        ("KAFKA_BOOTSTRAP_SERVERS", "host:abc", "tasks"),
        ("KAFKA_BOOTSTRAP_SERVERS", "host:abc", "reconcile"),
    ],
)
def test_invalid_setting_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str, command: str
) -> None:
    monkeypatch.delenv("DABBAWALA_URL", raising=False)
    monkeypatch.setenv(name, value)
    done = run(command)
    assert done.status == 2
    assert f"{name}={value!r}" in done.error


def test_foreign_answer_is_no_traceback(worker: FakeWorker, run: Run) -> None:
    worker.says("/v1/tasks", problem(418, "x")._replace(body="<html>", kind="text/html"))
    done = run("tasks")
    assert done.status == 2
    assert "answers 418" in done.error


# -- commands that change -------------------------------------------------------------------------------------------


def test_order_is_placed_from_a_file_or_stdin(
    worker: FakeWorker, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.says("/v1/orders", {"id": "my-shop:1", "placed_at": AT})
    file = tmp_path / "order.json"
    file.write_text('{"provider": "my-shop"}')
    assert run("orders", "place", str(file)) == (
        0,
        "my-shop:1 was already placed.\n",
        "Next: dabbawala orders watch my-shop:1\n",
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"provider": "other"}')))
    assert run("orders", "place", "-", "--key", "k1").status == 0
    first, second = worker.asked
    assert (first.method, first.body) == ("POST", b'{"provider": "my-shop"}')
    assert (second.headers["idempotency-key"], second.body) == ("k1", b'{"provider": "other"}')


@pytest.mark.parametrize(("key", "sent"), [("schl\u00fcssel", b"schl\xc3\xbcssel"), ("\udcff", b"\xff")])
def test_key_is_sent_in_utf_8(worker: FakeWorker, run: Run, tmp_path: Path, key: str, sent: bytes) -> None:
    worker.says("/v1/orders", {"id": "my-shop:1", "placed_at": AT})
    (tmp_path / "order.json").write_text("{}")
    assert run("orders", "place", str(tmp_path / "order.json"), "--key", key) == (
        0,
        "my-shop:1 was already placed.\n",
        "Next: dabbawala orders watch my-shop:1\n",
    )
    assert worker.asked[0].headers["idempotency-key"].encode("latin-1") == sent, (
        "http.server decodes headers as Latin-1"
    )


def test_rejected_order_names_every_field(worker: FakeWorker, run: Run, tmp_path: Path) -> None:
    errors = (("/total", "the total is 1"), ("/restaurant", "there is no restaurant 'x'"))
    worker.says("/v1/orders", problem(422, "the order cannot be taken: the total is 1", *errors))
    file = tmp_path / "order.json"
    file.write_text("{}")
    done = run("orders", "place", str(file))
    assert done.status == 2
    assert "/total: the total is 1" in done.error
    assert "/restaurant: there is no restaurant 'x'" in done.error


@pytest.mark.parametrize("command", ["retry", "abandon"])
def test_call_command_has_a_name_and_a_reason(worker: FakeWorker, run: Run, command: str) -> None:
    path = f"/v1/calls/my-shop:1/refund/ch-1/{command}"
    worker.says(path, {"call": "my-shop:1/refund/ch-1", "outcome": "APPLIED"})
    done = run("calls", command, "my-shop:1/refund/ch-1", "--reason", "they are back")
    assert done.status == 0, done.error
    asked = worker.asked[0]
    assert (asked.method, asked.path) == ("POST", path)
    assert json.loads(asked.body) == {"reason": "they are back"}
    assert asked.headers["idempotency-key"]


@pytest.mark.parametrize(
    ("number", "place"),
    [(1, "t-0 "), (3, "t-0, t-1, t-2 "), (4, "t-0, t-1 and 2 others "), (9, "t-0, t-1 and 7 others ")],
)
def test_topics_with_the_same_difference_are_one_row(
    capsys: pytest.CaptureFixture[str], number: int, place: str
) -> None:
    same = [ConfigMismatch(f"t-{n}", "partitions", "4", "5", "choose 4") for n in range(number)]
    topics._print([*same, ConfigMismatch("t-0", "retention.ms", "60000", "604800000")])
    _, _, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2
    assert rows[0].startswith(place)
    assert rows[1].rstrip().endswith("topics check --create")


@pytest.mark.parametrize(
    ("held_back", "printed"),
    [
        ({}, "is due now."),
        ({"held_back": None}, "is due now."),
        ({"held_back": "its party is not called for 4 s"}, "is due now; it waits: its party is not called for 4 s."),
        (None, "is due now."),
    ],
)
def test_retry_gives_the_reason_for_a_delay(
    worker: FakeWorker, run: Run, held_back: dict[str, str] | None, printed: str
) -> None:
    key = "my-shop:1/charge"
    worker.says(f"/v1/calls/{key}/retry", {"call": key, "outcome": "APPLIED"})
    rows = [{"key": key, **held_back}] if held_back else []
    worker.says("/v1/calls", {"calls": rows} if held_back is not None else problem(503, "not ready"))
    assert run("calls", "retry", key).printed == f"{key} {printed}\n"


@pytest.mark.parametrize(("outcome", "message"), [("APPLIED", "is settled"), ("ABSORBED", "does not need a person")])
def test_settlement_has_a_name_and_a_reason(worker: FakeWorker, run: Run, outcome: str, message: str) -> None:
    worker.says("/v1/orders/my-shop:1/settled", {"order": "my-shop:1", "outcome": outcome})
    done = run("orders", "settle", "my-shop:1", "--reason", "called the bank")
    assert done.status == 0, done.error
    assert message in done.printed
    [asked] = worker.asked
    assert json.loads(asked.body) == {"reason": "called the bank"}
    assert asked.headers["idempotency-key"]


def test_undecided_command_is_reported_as_accepted(worker: FakeWorker, run: Run) -> None:
    worker.says("/v1/dead-letters/3/17/replay", problem(202, "")._replace(body={"letter": "3/17"}))
    worker.says("/v1/calls/my-shop:1/charge/retry", problem(202, "")._replace(body={"call": "my-shop:1/charge"}))
    assert "accepted" in run("dead-letters", "replay", "3/17").printed
    assert "accepted" in run("calls", "retry", "my-shop:1/charge").printed


def test_rejected_command_has_a_reason(worker: FakeWorker, run: Run) -> None:
    worker.says("/v1/calls/my-shop:1/charge/retry", problem(409, "the payment is CHARGED"))
    assert run("calls", "retry", "my-shop:1/charge") == (2, "", "The payment is CHARGED.\n")


def test_rejected_settlement_names_the_call_to_retry(worker: FakeWorker, run: Run) -> None:
    why = "attention ends when the charge, given up by ana, has an answer"
    worker.says("/v1/orders/my-shop:1/settled", problem(409, why))
    worker.says("/v1/orders/my-shop:1", an_order("1", attention={"call": {"key": "my-shop:1/charge"}}))
    done = run("orders", "settle", "my-shop:1")
    assert (done.status, done.printed) == (2, "")
    assert "has an answer. Next: dabbawala calls retry my-shop:1/charge" in done.error


def test_long_key_of_a_dead_letter_is_shortened_in_tables(worker: FakeWorker, run: Run) -> None:
    key = "k" * 5000
    page = {"dead_letters": [LETTER | {"key": {"text": key}}], "next": None}
    worker.says("/v1/dead-letters", page)
    printed = run("dead-letters", "list").printed
    assert "k" * 59 + "…" in printed
    assert "k" * 60 not in printed
    assert json.loads(run("dead-letters", "list", "--json").printed) == page


def test_long_reason_of_a_dead_letter_ends_with_an_ellipsis(worker: FakeWorker, run: Run) -> None:
    worker.says("/v1/dead-letters", {"dead_letters": [LETTER | {"reason": "r" * 150}], "next": None})
    printed = run("dead-letters", "list").printed
    assert "r" * 99 + "…" in printed
    assert "r" * 100 not in printed


def test_attention_of_an_operator_names_its_command(worker: FakeWorker, run: Run) -> None:
    rows = [
        an_order("1", attention={"waits_for": "an operator: the restaurant cooks a rejected ticket", "since": AT}),
        an_order("2", attention={"waits_for": "a driver", "since": AT}),
    ]
    worker.says("/v1/orders", {"orders": rows, "next": None})
    first, second = run("orders", "list", "--attention").printed.splitlines()[-2:]
    assert first.rstrip().endswith("resolve it, then `dabbawala orders settle my-shop:1`")
    assert "settle" not in second


def test_reveal_is_sent_with_its_reason(worker: FakeWorker, run: Run) -> None:
    worker.says("/v1/drivers/ravi", DRIVER)
    worker.says(
        "/v1/dead-letters/3/17", {**LETTER, "value": {"hidden_bytes": 9}, "fields": {"total": 1}, "headers": []}
    )
    assert run("drivers", "get", "ravi", "--reveal", "--reason", "a complaint").status == 0
    shown = run("dead-letters", "show", "3/17").printed
    assert [asked.query for asked in worker.asked] == [{"reveal": "true", "reason": "a complaint"}, {}]
    assert "hidden, 9 bytes" in shown
    assert '{"total": 1}' in shown


def test_audit_takes_an_age(worker: FakeWorker, run: Run) -> None:
    worker.says("/v1/audit", {"actions": []})
    done = run("audit", "--since", "2h", "--by", "ana", "--order", "my-shop:1")
    assert (done.status, done.error) == (0, "No actions match.\n")
    query = worker.asked[0].query
    ago = datetime.now(UTC) - datetime.fromisoformat(query.pop("since"))
    assert timedelta(hours=2) <= ago < timedelta(hours=3)
    assert query == {"by": "ana", "order": "my-shop:1", "limit": "50"}
    for wrong in ("2", "h", "-2h", "2w", "1" * 9 + "d"):
        assert "is not an age" in run("audit", "--since", wrong).error


@pytest.mark.parametrize(("command", "done"), [("replay", "is replayed"), ("discard", "is discarded")])
def test_dead_letter_is_replayed_or_discarded_once(worker: FakeWorker, run: Run, command: str, done: str) -> None:
    path = f"/v1/dead-letters/3/17/{command}"
    worker.says(path, {"letter": "3/17", "outcome": "APPLIED"}, {"letter": "3/17", "outcome": "ABSORBED"})
    first, second = run("dead-letters", command, "3/17"), run("dead-letters", command, "3/0017")
    assert (first.status, second.status) == (0, 0)
    assert done in first.printed
    assert second.printed == "3/17 does not exist, or was replayed or discarded before; nothing to do.\n"


# -- the program -----------------------------------------------------------------------------------------------------


def every_command() -> list[tuple[str, click.Command]]:
    found = [(name, program.get_command(click.Context(program), name)) for name in COMMANDS]
    commands: list[tuple[str, click.Command]] = []
    for name, command in found:
        assert command is not None
        commands.append((name, command))
        if isinstance(command, click.Group):
            commands += [(f"{name} {sub}", command.commands[sub]) for sub in command.commands]
    return commands


@pytest.mark.parametrize(("name", "command"), every_command(), ids=[name for name, _ in every_command()])
def test_every_command_and_option_has_help(name: str, command: click.Command) -> None:
    assert command.help, name
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not isinstance(parameter.type, click.Choice):
            assert parameter.help, f"{name} {parameter.name}"


def imported_by(arguments: list[str], packages: tuple[str, ...]) -> list[str]:
    """Return which of these packages a command of `dabbawala` imports."""
    probe = (
        "import sys; from streams.cli.__main__ import main\n"
        f"main({arguments})\n"
        f"print(*(name for name in {packages} if name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=ROOT,
        env={**os.environ, "DABBAWALA_URL": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr.splitlines()[-1].split()


@pytest.mark.parametrize("arguments", [["orders", "get", "a:b"], ["orders", "list"], ["drivers", "list"]])
def test_client_commands_import_no_kafka(arguments: list[str]) -> None:
    assert imported_by(arguments, ("faust", "aiokafka", "rocksdict")) == []


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_commands_without_a_worker_import_no_faust(arguments: list[str]) -> None:
    assert imported_by(arguments, ("faust",)) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_each_shell(run: Run, shell: str) -> None:
    done = run("completion", shell)
    assert done.status == 0
    assert "_DABBAWALA_COMPLETE" in done.printed


def test_bash_completes_commands_options_and_ids(worker: FakeWorker, tmp_path: Path) -> None:
    program = tmp_path / "dabbawala"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m streams.cli "$@"\n')
    program.chmod(0o755)
    worker.says("/v1/orders", {"orders": [an_order("1001"), an_order("1002"), an_order("2")], "next": None})

    def completed(*words: str) -> list[str]:
        script = (
            'eval "$(dabbawala completion bash)"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
            '_dabbawala_completion dabbawala; printf "%s\\n" "${COMPREPLY[@]}"; [[ $COMP_WORDBREAKS != *:* ]]'
        )
        done = subprocess.run(
            ["bash", "-c", script, "bash", *words],
            cwd=ROOT,
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    assert completed("dabbawala", "dead") == ["dead-letters"]
    assert completed("dabbawala", "orders", "list", "--att") == ["--attention"]
    assert completed("dabbawala", "orders", "get", "my-shop:100") == ["my-shop:1001", "my-shop:1002"]
    assert worker.asked[-1].query["cursor"] == "my-shop:100"


HOSTILE = "\x1b]52;c;eA==\x07\x9b2J\x7f\u202e\u2066"
SHAPED = {"status", "at", "since", "placed_at", "updated_at", "retired_at", "next_attempt", "eta", "due", "currency"}
"""Fields whose values a worker makes, in a form that a command reads."""


def with_hostile_texts(answer: Any, field: str = "") -> Any:
    """Return an answer with hostile characters in every text that somebody else may have written."""
    if isinstance(answer, dict):
        return {name: with_hostile_texts(value, name) for name, value in answer.items()}
    if isinstance(answer, list):
        return [with_hostile_texts(value, field) for value in answer]
    return answer + HOSTILE if isinstance(answer, str) and field not in SHAPED else answer


@pytest.mark.parametrize("form", ["", "--json"])
@pytest.mark.parametrize("line", READ_COMMANDS)
def test_texts_of_others_are_harmless_for_the_terminal(worker: FakeWorker, run: Run, line: str, form: str) -> None:
    path, answer, _ = READ_COMMANDS[line]
    hostile = with_hostile_texts(answer)
    worker.says(path, hostile)
    done = run(*line.split(), *filter(None, [form]))
    assert plain_lines(done.printed + done.error) == done.printed + done.error
    if form:
        assert json.loads(done.printed) == hostile
    elif answer != hostile and "entries" not in answer:
        assert "\\u001b" in done.printed


def test_refusal_of_a_worker_is_harmless_for_the_terminal(worker: FakeWorker, run: Run) -> None:
    worker.says("/v1/orders/my-shop:1", problem(409, f"no{HOSTILE}", (f"/x{HOSTILE}", HOSTILE)))
    done = run("orders", "get", "my-shop:1")
    assert plain_lines(done.error) == done.error
    assert "\\u001b" in done.error


def test_commands_print_by_way_of_the_output_module() -> None:
    others = {path.name for path in (ROOT / "streams/cli").glob("*.py") if "click.echo(" in path.read_text()}
    assert others == {"output.py", "errors.py", "__main__.py"}
