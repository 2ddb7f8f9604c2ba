"""An order is followed to its end, across interruptions of the stream."""

import json
import os
import threading
import time
from pathlib import Path

import pytest
from click import Argument, Command, Context

from streams.cli import follow as following
from streams.cli.follow import Event, events
from streams.cli.param_types import ORDER
from tests.streams.cli.conftest import Answer, Asked, FakeWorker, Run, problem

PATH = "/v1/orders/my-shop:1/events"


def update(version: int, status: str, **more: str) -> str:
    fields = {**more, "type": "OrderUpdated", "id": f"u{version}", "at": "2026-01-02T03:04:05Z", "order": "my-shop:1"}
    data = json.dumps({**fields, "version": version, "status": status, "restaurant": "r"})
    return f"id: 2-{version}\nevent: order-updated\ndata: {data}\n\n"


def stream(*parts: str) -> Answer:
    return Answer(200, "retry: 1000\n\n" + "".join(parts), "text/event-stream")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "RETRY_S", 0.0)


def test_events_are_parsed_by_the_standard() -> None:
    lines = [": alive", "", "id: 1", "event: a", "data: x", "data:y", "", "data: z", "", "id: 9", "data: cut off"]
    assert list(events(lines)) == [Event("1", "a", "x\ny"), Event("1", "message", "z")]


def test_order_is_followed_until_it_is_delivered(worker: FakeWorker, run: Run) -> None:
    worker.says(PATH, stream(update(1, "CREATED"), ": alive\n\n", update(2, "DELIVERED"), "event: end\ndata: {}\n\n"))
    done = run("orders", "watch", "my-shop:1")
    assert (done.status, done.error) == (0, "")
    assert [line.split()[-1] for line in done.printed.splitlines()] == ["CREATED", "DELIVERED"]


@pytest.mark.parametrize(("options", "lines"), [((), 3), (("--all",), 4), (("--json",), 4)])
def test_new_eta_alone_is_shown_on_request(worker: FakeWorker, run: Run, options: tuple[str, ...], lines: int) -> None:
    etas = [update(version, "IN_DELIVERY", eta=f"2026-01-02T03:0{version}:00Z") for version in (2, 3)]
    worker.says(PATH, stream(update(1, "CREATED"), *etas, update(4, "DELIVERED")))
    assert len(run("orders", "watch", "my-shop:1", *options).printed.splitlines()) == lines


def test_rejected_order_gives_exit_code_1(worker: FakeWorker, run: Run) -> None:
    worker.says(PATH, stream(update(1, "CREATED"), update(2, "REJECTED", reason="payment_declined")))
    done = run("orders", "watch", "my-shop:1")
    assert done.status == 1
    assert done.printed.endswith("REJECTED  payment declined\n")


def test_broken_stream_resumes_after_the_last_event(worker: FakeWorker, run: Run) -> None:
    seen: list[str | None] = []

    def resume(asked: Asked) -> Answer:
        seen.append(asked.headers.get("last-event-id"))
        return stream(update(3, "DELIVERED"))

    cut = stream(update(1, "CREATED"), update(2, "SCHEDULED"), update(3, "DELIVERED")[:30])
    worker.says(PATH, cut, problem(503, "not ready"), resume)
    done = run("orders", "watch", "my-shop:1", "--json")
    assert done.status == 0
    assert [json.loads(line)["version"] for line in done.printed.splitlines()] == [1, 2, 3]
    assert seen == ["2-2"]


def test_missing_worker_is_awaited_once_an_order_was_followed(
    worker: FakeWorker, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = os.environ["DABBAWALA_URL"]
    monkeypatch.setenv("DABBAWALA_DIR", str(tmp_path))
    monkeypatch.setattr(following, "RETRY_S", 0.01)

    def answer_and_die(_: Asked) -> Answer:
        monkeypatch.delenv("DABBAWALA_URL")
        threading.Timer(0.1, lambda: os.environ.__setitem__("DABBAWALA_URL", url)).start()
        return stream(update(1, "CREATED"))

    worker.says(PATH, answer_and_die, stream(update(2, "DELIVERED")))
    assert run("orders", "watch", "my-shop:1").status == 0
    monkeypatch.delenv("DABBAWALA_URL")
    done = run("orders", "watch", "my-shop:1")
    assert (done.status, done.printed) == (2, "")
    assert "No worker runs" in done.error


def test_order_that_ended_earlier_ends_the_command(worker: FakeWorker, run: Run) -> None:
    worker.says(PATH, stream())
    worker.says("/v1/orders/my-shop:1", {"status": "DELIVERED"})
    done = run("orders", "watch", "my-shop:1")
    assert (done.printed, done.status) == ("", 0)


def test_unknown_order_fails_at_once(worker: FakeWorker, run: Run) -> None:
    worker.says(PATH, problem(404, "there is no order my-shop:1 here"))
    assert run("orders", "watch", "my-shop:1") == (1, "", "There is no order my-shop:1 here.\n")


@pytest.mark.parametrize("url", ["localhost:6066", "127.0.0.1:6066", "http://localhost:abc", "ftp://a", "http://"])
def test_invalid_url_fails_at_once(run: Run, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DABBAWALA_URL", url)
    monkeypatch.setattr(following, "PATIENCE_S", 600.0)
    began = time.monotonic()
    done = run("orders", "watch", "my-shop:1")
    assert (done.status, done.printed) == (2, "")
    assert done.error == f"DABBAWALA_URL={url!r}: it must be a URL, such as http://127.0.0.1:6066.\n"
    assert run("orders", "list") == done
    assert ORDER.shell_complete(Context(Command("")), Argument(["order"]), "my-") == []
    assert time.monotonic() - began < following.PATIENCE_S / 4


def test_command_gives_up_without_an_answer(worker: FakeWorker, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PATIENCE_S", 0.0)
    worker.says(PATH, problem(503, "not ready"))
    done = run("orders", "watch", "my-shop:1")
    assert done.status == 2
    assert "is the worker running?" in done.error
