"""Ledgers keep every written line, and explain a file that is not a ledger."""

import inspect
import re
from pathlib import Path

import pytest

from simulators import ledger as ledgers
from simulators.cli import Failure
from simulators.ledger import AnswerEntry, Entry, Ledger, PaymentEntry, RunEntry, TicketEntry, TripEntry, record_run


def test_torn_last_line_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "trips.jsonl"
    first = TripEntry(driver="driver-01", event="available", shift=1)
    torn = Ledger(path, TripEntry)
    torn.append(first)
    torn.close()
    path.write_bytes(path.read_bytes() + b'{"at":"2026-01-01T00:00')

    again = Ledger(path, TripEntry)
    assert list(again.written_before()) == [first]
    second = TripEntry(driver="driver-02", event="available", shift=1)
    again.append(second)

    again.close()
    assert list(Ledger(path, TripEntry).written_before()) == [first, second]


def test_ledger_in_use_is_rejected(tmp_path: Path) -> None:
    held = Ledger(tmp_path / "trips.jsonl", TripEntry)
    with pytest.raises(Failure, match="in use by another process"):
        Ledger(held.path, TripEntry)


def test_invalid_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trips.jsonl"
    path.write_bytes(b'{"driver":1}\n')
    with pytest.raises(Failure, match=r"trips\.jsonl, line 1, cannot be read"):
        list(Ledger(path, TripEntry).written_before())


def test_unwritable_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Failure, match=r"cannot be opened: .*; name another with --ledger"):
        Ledger(tmp_path / "file" / "trips.jsonl", TripEntry)


def test_each_start_records_its_speed(tmp_path: Path) -> None:
    record_run(tmp_path / "payment.jsonl", "payment", 60.0)
    record_run(tmp_path / "pos.jsonl", "pos", 1.0)
    runs = Ledger(tmp_path / "runs.jsonl", RunEntry).written_before()
    assert [(run.party, run.speed) for run in runs] == [("payment", 60.0), ("pos", 1.0)]


@pytest.mark.parametrize("kind", [PaymentEntry, TicketEntry, TripEntry, AnswerEntry, RunEntry])
def test_documented_fields_are_those_of_a_line(kind: type[Entry]) -> None:
    described = re.search(rf"`\w+\.jsonl` \(`{kind.__name__}`\)\n(.*?)\n\n", inspect.getdoc(ledgers) or "", re.DOTALL)
    assert described
    documented = {field.strip() for field in re.sub(r"\([^)]*\)", "", described[1]).split(",")}
    assert documented == set(kind.__struct_fields__)
