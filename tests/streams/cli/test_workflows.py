"""Orders under way: `dabbawala workflows`."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from rich.console import Console

from streams.cli import output, workflows
from streams.cli.errors import EXIT_INTERRUPTED
from streams.cli.journal_tree import MAX_DEPTH, journal_tree
from tests.streams.cli.conftest import FakeWorker, Run, problem

NOW = datetime.now(UTC)
ID = "my-shop:1"
CALL = {
    "key": f"{ID}/prepare",
    "order": ID,
    "kind": "prepare",
    "url": "http://pos/prepare",
    "attempts": 3,
    "next_attempt": (NOW + timedelta(hours=3, minutes=30)).isoformat(),
    "last_error": "http://pos/prepare: no answer within 8 s",
    "held_back": "its party failed 5 times in a row and is not called for 4 s",
    "cause": 5,
}
RETRY = f"dabbawala calls retry {ID}/prepare"


def a_row(name: str = ID, **changes: Any) -> dict[str, Any]:
    return {
        "id": name,
        "status": "SCHEDULED",
        "restaurant": "ballard-slice",
        "waits_on": ["restaurant"],
        "waits_for": "the restaurant's answer",
        "since": NOW.isoformat(),
        "waited_s": 250,
        "due": None,
        "attention": [],
        "call": CALL,
        "command": RETRY,
    } | changes


def page(*rows: dict[str, Any], count: int | None = None) -> dict[str, Any]:
    return {"workflows": list(rows), "next": None, "count": len(rows) if count is None else count}


def entry(seq: int, event: str, event_id: str, cause: int | None, at_s: float, **more: Any) -> dict[str, Any]:
    at = (NOW + timedelta(seconds=at_s)).isoformat()
    return {"seq": seq, "at": at, "machine": "order", "event": event, "event_id": event_id, "cause": cause} | more


JOURNAL = [
    entry(1, "OrderPlaced", "p", None, 0, after="CREATED", emitted=[f"{ID}/update/1"]),
    entry(2, "PaymentRequested", "p", 1, 0, machine="payment", after="DUE", emitted=[f"{ID}/charge"]),
    entry(3, "Charged", f"{ID}/charge", 2, 300, machine="payment", before="DUE", after="CHARGED"),
    entry(4, "PaymentCharged", f"{ID}/charge", 3, 300, before="CREATED", after="SCHEDULED, asked"),
    entry(5, "TicketRequested", f"{ID}/charge", 3, 300, machine="ticket", after="ASKED", emitted=[f"{ID}/prepare"]),
    entry(6, "DriverAssigned", "x", 1, 301, machine="delivery", outcome="REFUSED", reason="it has not begun"),
]


def described(**changes: Any) -> dict[str, Any]:
    order = {
        "id": ID,
        "status": "SCHEDULED",
        "reason": "",
        "driver": None,
        "eta": None,
        "placed_at": NOW.isoformat(),
        "updated_at": NOW.isoformat(),
    }
    return {
        "order": order,
        "stage": "SCHEDULED, asked",
        "region": "fort",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "waiting": {
            "on": ["restaurant"],
            "waits_for": "the restaurant's answer",
            "since": (NOW - timedelta(hours=5)).isoformat(),
        },
        "attention": [
            {"waits_for": "the restaurant's answer", "since": NOW.isoformat(), "needs_operator": False},
            {"waits_for": "an operator: a contradiction", "since": NOW.isoformat(), "needs_operator": True},
        ],
        "upcoming": [{"at": (NOW + timedelta(hours=3)).isoformat(), "happens": f"attempt 4 of the call {ID}/prepare"}],
        "remedies": [{"command": RETRY, "effect": "makes the next attempt now"}],
        "timers": [],
        "calls": [CALL],
        "payment": {
            "status": "CHARGED",
            "amount": 90000,
            "currency": "INR",
            "charge_id": "c1",
            "refunds": [{"charge_id": "c2", "amount": 100, "currency": "INR", "done": False}],
        },
        "ticket": {"status": "ASKED", "restaurant": "ballard-slice", "reason": ""},
        "delivery": None,
        "journal": JOURNAL,
    } | changes


def test_a_list_has_the_wait_and_the_call_and_counts(worker: FakeWorker, run: Run) -> None:
    stuck = a_row("my-shop:2", attention=["an operator: a contradiction"], call=None, command=None)
    worker.says("/v1/workflows", page(a_row(), stuck, count=7))
    done = run("workflows", "list")
    assert done.status == 0
    title, heads, first, second = done.printed.splitlines()
    assert title == "workflows: 2 of 7"
    assert heads.split()[:2] == ["order", "status"]
    for cell in ("the restaurant's answer", "4 min 10 s", " 3 ", "in 3 h", "no answer within 8 s", RETRY):
        assert cell in first
    assert "needs a person: an operator: a contradiction" in second
    assert done.error == f"Next: dabbawala workflows describe {ID}\n"


def test_options_become_query_parameters(worker: FakeWorker, run: Run) -> None:
    worker.says("/v1/workflows", page())
    line = "--waiting-on Driver --for 5m --status created,in_delivery --oldest-first --limit 3 --cursor 1/a:b"
    assert run("workflows", "list", *line.split()) == (0, "", "No orders match.\n")
    assert worker.asked[0].query == {
        "waiting_on": "driver",
        "waited_s": "300",
        "status": "CREATED,IN_DELIVERY",
        "sort": "oldest",
        "limit": "3",
        "cursor": "1/a:b",
    }
    run("workflows", "list", "--json")
    assert worker.asked[1].query == {"sort": "newest", "limit": "50"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--for 5", "is not an age"),
        ("--status lost", "'LOST' is no status: use CREATED"),
        ("--waiting-on cook", "--waiting-on"),
        ("--watch --json", "leave out --json"),
    ],
)
def test_a_wrong_option_is_named(run: Run, line: str, message: str) -> None:
    done = run("workflows", "list", *line.split())
    assert (done.status, done.printed) == (2, "")
    assert message in done.error
    assert len(done.error.splitlines()) == 1


def test_watch_redraws_until_it_is_interrupted(worker: FakeWorker, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("streams.cli.workflows.time.sleep", pause)
    worker.says("/v1/workflows", page(a_row()), problem(422, "it is ill"), page(a_row(), a_row("my-shop:2")))
    done = run("workflows", "list", "--watch")
    assert done.status == EXIT_INTERRUPTED
    titles = [line for line in done.printed.splitlines() if line.startswith("workflows")]
    assert titles == ["workflows: 1 of 1", "workflows: 1 of 1", "workflows: 2 of 2"]
    assert "It is ill." in done.printed, "the error of the second request, below the first picture"
    assert all(seconds >= workflows.REDRAW_S for seconds in pauses)


def test_slow_answers_are_asked_for_less_often() -> None:
    assert [workflows._pause_s(took_s) for took_s in (0.01, 3.0)] == [2.0, 30.0]


def test_watch_ends_with_the_error_of_its_first_request(worker: FakeWorker, run: Run) -> None:
    worker.says("/v1/workflows", problem(403, "your key may not"))
    assert run("workflows", "list", "--watch") == (2, "", "Your key may not.\n")


def test_a_page_has_all_about_a_stuck_order(worker: FakeWorker, run: Run) -> None:
    worker.says(f"/v1/orders/{ID}/workflow", described())
    done = run("workflows", "describe", ID)
    assert (done.status, done.error) == (0, "")
    for seen in (
        "SCHEDULED (SCHEDULED, asked)",
        "the restaurant's answer, for 5 h",
        "an operator: a contradiction, for",
        "only an operator can clear it",
        f": attempt 4 of the call {ID}/prepare",
        "CHARGED, INR 900.00, charge c1, INR 1.00 of c2 is to be refunded",
        "ASKED at ballard-slice",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "is not called for 4 s",
        f"{RETRY}  makes the next attempt now",
    ):
        assert seen in done.printed
    assert "\ndelivery " not in done.printed
    assert "\x1b" not in done.printed


def test_the_journal_is_a_tree_of_transactions(worker: FakeWorker, run: Run) -> None:
    worker.says(f"/v1/orders/{ID}/workflow", described())
    printed = run("workflows", "describe", ID).printed
    lines = printed[printed.index("journal") : printed.index("what you can do")].strip().splitlines()
    depths = [len(line) - len(line.lstrip(" │├└─")) for line in lines]
    assert depths == [0, 4, 4, 8, 8, 8, 12, 8], "\n".join(lines)
    assert "OrderPlaced order CREATED" in lines[1]
    assert f"PaymentRequested payment DUE  asks {ID}/charge" in lines[2]
    assert " +5 min 0 s  Charged payment DUE → CHARGED" in lines[3]
    assert f"no answer to {ID}/prepare: 3 attempts failed, next in 3 h" in lines[6]
    assert "DriverAssigned delivery  REFUSED: it has not begun" in lines[7]


def test_a_page_fits_80_columns(worker: FakeWorker, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "Console", partial(Console, width=80, force_terminal=True, color_system=None))
    worker.says(f"/v1/orders/{ID}/workflow", described())
    worker.says("/v1/workflows", page(a_row()))
    for line in (("workflows", "describe", ID), ("workflows", "list")):
        printed = run(*line).printed
        assert max(map(len, printed.splitlines())) <= 80, printed
        assert RETRY in printed


def test_changes_of_the_eta_are_left_out_and_counted(worker: FakeWorker, run: Run) -> None:
    etas = [entry(6 + n, "EtaChanged", f"e{n}", 1, 400 + n) for n in range(1, 4)]
    worker.says(f"/v1/orders/{ID}/workflow", described(journal=[*JOURNAL, *etas]))
    printed = run("workflows", "describe", ID).printed
    assert "journal (3 entries left out: --all)" in printed
    assert "EtaChanged" not in printed
    assert run("workflows", "describe", ID, "--all").printed.count("EtaChanged") == 3


def test_a_deep_journal_stays_within_its_levels() -> None:
    chain = [entry(seq, f"E{seq}", str(seq), seq - 1 or None, seq) for seq in range(1, 60)]
    tree, depth = journal_tree(chain, [], every=True), 0
    while tree.children:
        tree, depth = tree.children[0], depth + 1
    assert depth == MAX_DEPTH


def test_a_long_journal_shows_its_newest_entries(worker: FakeWorker, run: Run) -> None:
    chain = [entry(seq, f"E{seq}", str(seq), 1 if seq > 1 else None, seq) for seq in range(1, 1002)]
    worker.says(f"/v1/orders/{ID}/workflow", described(journal=chain))
    printed = run("workflows", "describe", ID).printed
    assert "801 entries left out" in printed
    assert "E1001 " in printed
    assert "E801 " not in printed


def test_json_is_that_of_the_worker(worker: FakeWorker, run: Run) -> None:
    worker.says(f"/v1/orders/{ID}/workflow", described())
    assert json.loads(run("workflows", "describe", ID, "--json").printed) == described()
    worker.says("/v1/workflows", page(a_row()))
    assert json.loads(run("workflows", "list", "--json").printed) == page(a_row())


def test_retired_orders_have_a_page_and_erased_ones_a_sentence(worker: FakeWorker, run: Run) -> None:
    retired = described(waiting=None, attention=[], remedies=[], calls=[], retired_at="2026-01-02T03:04:05Z")
    worker.says(f"/v1/orders/{ID}/workflow", retired, problem(410, f"the order {ID} was erased at 2026-01-02"))
    printed = run("workflows", "describe", ID).printed
    assert "moved to the history  2026-01-02" in printed
    assert "what you can do" not in printed
    assert run("workflows", "describe", ID) == (2, "", f"The order {ID} was erased at 2026-01-02.\n")
