"""An order is followed to its end, whatever cuts the stream off."""

import json
import os
import threading
import time
from pathlib import Path

import pytest
from click import Argument, Command, Context

from streams.cli import watching
from streams.cli.ids import ORDER
from streams.cli.watching import Event, events
from tests.cli.conftest import Answer, Asked, FakeWorker, Run, problem

PATH = "/v1/orders/my-shop:1/events"


def update(version: int, status: str) -> str:
    said = {"type": "OrderUpdated", "id": f"u{version}", "at": "2026-01-02T03:04:05Z", "order": "my-shop:1"}
    data = json.dumps({**said, "version": version, "status": status, "restaurant": "r"})
    return f"id: 2-{version}\nevent: order-updated\ndata: {data}\n\n"


def stream(*parts: str) -> Answer:
    return Answer(200, "retry: 1000\n\n" + "".join(parts), "text/event-stream")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "AGAIN_S", 0.0)


def test_events_are_read_as_the_standard_says() -> None:
    lines = [": alive", "", "id: 1", "event: a", "data: x", "data:y", "", "data: z", "", "id: 9", "data: cut off"]
    assert list(events(lines)) == [Event("1", "a", "x\ny"), Event("1", "message", "z")]


def test_an_order_is_followed_until_it_is_delivered(worker: FakeWorker, run: Run) -> None:
    worker.says(PATH, stream(update(1, "CREATED"), ": alive\n\n", update(2, "DELIVERED"), "event: end\ndata: {}\n\n"))
    done = run("orders", "watch", "my-shop:1")
    assert (done.status, done.error) == (0, "")
    assert [line.split()[-1] for line in done.printed.splitlines()] == ["CREATED", "DELIVERED"]


def test_an_order_that_is_rejected_ends_with_1(worker: FakeWorker, run: Run) -> None:
    worker.says(PATH, stream(update(1, "CREATED"), update(2, "REJECTED")))
    assert run("orders", "watch", "my-shop:1").status == 1


def test_a_stream_that_was_cut_off_is_taken_up_after_the_last_event(worker: FakeWorker, run: Run) -> None:
    seen: list[str | None] = []

    def from_there(asked: Asked) -> Answer:
        seen.append(asked.headers.get("last-event-id"))
        return stream(update(3, "DELIVERED"))

    cut = stream(update(1, "CREATED"), update(2, "SCHEDULED"), update(3, "DELIVERED")[:30])
    worker.says(PATH, cut, problem(503, "not ready"), from_there)
    done = run("orders", "watch", "my-shop:1", "--json")
    assert done.status == 0
    assert [json.loads(line)["version"] for line in done.printed.splitlines()] == [1, 2, 3]
    assert seen == ["2-2"]


def test_while_no_worker_runs_here_an_order_that_was_followed_is_waited_for(
    worker: FakeWorker, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = os.environ["DABBAWALA_URL"]
    monkeypatch.setenv("DABBAWALA_DIR", str(tmp_path))
    monkeypatch.setattr(watching, "AGAIN_S", 0.01)

    def and_dies(_: Asked) -> Answer:
        monkeypatch.delenv("DABBAWALA_URL")
        threading.Timer(0.1, lambda: os.environ.__setitem__("DABBAWALA_URL", url)).start()
        return stream(update(1, "CREATED"))

    worker.says(PATH, and_dies, stream(update(2, "DELIVERED")))
    assert run("orders", "watch", "my-shop:1").status == 0
    monkeypatch.delenv("DABBAWALA_URL")
    done = run("orders", "watch", "my-shop:1")
    assert (done.status, done.printed) == (2, "")
    assert "No worker runs" in done.error


def test_an_order_that_ended_before_anybody_looked_is_at_its_end(worker: FakeWorker, run: Run) -> None:
    worker.says(PATH, stream())
    worker.says("/v1/orders/my-shop:1", {"status": "DELIVERED"})
    done = run("orders", "watch", "my-shop:1")
    assert (done.printed, done.status) == ("", 0)


def test_an_order_nobody_knows_is_told_at_once(worker: FakeWorker, run: Run) -> None:
    worker.says(PATH, problem(404, "there is no order my-shop:1 here"))
    assert run("orders", "watch", "my-shop:1") == (1, "", "There is no order my-shop:1 here.\n")


@pytest.mark.parametrize("url", ["localhost:6066", "127.0.0.1:6066", "http://localhost:abc", "ftp://a", "http://"])
def test_where_no_worker_could_be_nobody_waits_for_one(run: Run, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DABBAWALA_URL", url)
    began = time.monotonic()
    done = run("orders", "watch", "my-shop:1")
    assert (done.status, done.printed) == (2, "")
    assert done.error == f"DABBAWALA_URL={url!r}: it must be a URL, as http://127.0.0.1:6066 is one.\n"
    assert run("orders", "list") == done
    assert ORDER.shell_complete(Context(Command("")), Argument(["order"]), "my-") == []
    assert time.monotonic() - began < watching.PATIENCE_S / 4


def test_when_nobody_answers_for_long_it_gives_up(
    worker: FakeWorker, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "PATIENCE_S", 0.0)
    worker.says(PATH, problem(503, "not ready"))
    done = run("orders", "watch", "my-shop:1")
    assert done.status == 2
    assert "is the worker running?" in done.error
