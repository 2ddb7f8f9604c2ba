"""Ledgers lose nothing that was written, and say what is wrong with a file that is no ledger."""

import inspect
import re
from pathlib import Path

import pytest

from simulators import ledger as ledgers
from simulators.command import Failure
from simulators.ledger import AnswerEntry, Entry, Ledger, PaymentEntry, TicketEntry, TripEntry


def test_a_torn_last_line_is_cut_off_and_the_next_entry_is_whole(tmp_path: Path) -> None:
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


def test_a_ledger_in_use_is_refused(tmp_path: Path) -> None:
    held = Ledger(tmp_path / "trips.jsonl", TripEntry)
    with pytest.raises(Failure, match="in use by another process"):
        Ledger(held.path, TripEntry)


def test_a_line_that_is_no_entry_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trips.jsonl"
    path.write_bytes(b'{"driver":1}\n')
    with pytest.raises(Failure, match=r"trips\.jsonl, line 1, cannot be read"):
        list(Ledger(path, TripEntry).written_before())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Failure, match=r"cannot be opened: .*; name another with --ledger"):
        Ledger(tmp_path / "file" / "trips.jsonl", TripEntry)


@pytest.mark.parametrize("kind", [PaymentEntry, TicketEntry, TripEntry, AnswerEntry])
def test_the_fields_of_a_line_are_those_that_are_documented(kind: type[Entry]) -> None:
    described = re.search(rf"`\w+\.jsonl` \(`{kind.__name__}`\)\n(.*?)\n\n", inspect.getdoc(ledgers) or "", re.DOTALL)
    assert described
    documented = {field.strip() for field in re.sub(r"\([^)]*\)", "", described[1]).split(",")}
    assert documented == set(kind.__struct_fields__)
