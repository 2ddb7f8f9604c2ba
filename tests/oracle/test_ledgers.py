"""Reading of ledgers: lines that cannot be read are reported, and the other lines count."""

from pathlib import Path

import msgspec
import pytest

from oracle import ledgers
from oracle.ledgers import KINDS, AnswerLine, PaymentLine
from simulators.ledger import AnswerEntry, Entry, PaymentEntry, RunEntry, TicketEntry, TripEntry
from topics.records import instant

CHARGED = b'{"at":"2027-01-15T08:00:00Z","key":"k","kind":"charge","order":"p:o","outcome":"charged","amount":5}'


def read(directory: Path, content: bytes) -> tuple[list[PaymentLine] | None, list[tuple[str, str]]]:
    """Return the lines of a payment ledger with this content, and its errors."""
    (directory / "payment.jsonl").write_bytes(content)
    errors: list[tuple[str, str]] = []
    return ledgers.read(directory, "payment", PaymentLine, errors), errors


def test_absent_ledger_differs_from_an_empty_one(tmp_path: Path) -> None:
    assert ledgers.read(tmp_path, "pos", PaymentLine, []) is None
    assert read(tmp_path, b"") == ([], [])


def test_line_has_its_location(tmp_path: Path) -> None:
    found, errors = read(tmp_path, CHARGED + b"\n" + CHARGED + b"\n")
    assert found is not None
    assert [line.where for line in found] == ["payment.jsonl line 1", "payment.jsonl line 2"]
    assert found[0].at_ms == 1_800_000_000_000
    assert not errors


def test_last_line_without_line_end_is_ignored(tmp_path: Path) -> None:
    found, errors = read(tmp_path, CHARGED + b"\n" + CHARGED[:40])
    assert found is not None
    assert len(found) == 1
    assert not errors


@pytest.mark.parametrize("odd", [b"{", b"\xff\xfe", b"[]", b'{"at":"yesterday"}', b""])
def test_unreadable_line_is_reported_and_others_count(tmp_path: Path, odd: bytes) -> None:
    found, errors = read(tmp_path, CHARGED + b"\n" + odd + b"\n" + CHARGED + b"\n")
    assert found is not None
    assert [line.number for line in found] == [1, 3]
    assert [where for where, _ in errors] == ["payment.jsonl line 2"]


def test_unreadable_ledger_is_reported(tmp_path: Path) -> None:
    (tmp_path / "pos.jsonl").mkdir()  # permissions do not stop root
    errors: list[tuple[str, str]] = []
    assert ledgers.read(tmp_path, "pos", PaymentLine, errors) is None
    assert errors == [("pos.jsonl", "Is a directory")]


def test_unknown_fields_are_ignored(tmp_path: Path) -> None:
    found, errors = read(tmp_path, CHARGED[:-1] + b',"mood":"fine","number":"none","file":5}\n')
    assert found is not None
    assert found[0].amount == 5
    assert not errors


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("payment", PaymentEntry(key="k", kind="charge", order="p:o", outcome="charged")),
        ("pos", TicketEntry(event="finished", order="p:o", key="k", restaurant="r")),
        ("trips", TripEntry(driver="d", event="assigned", delivery="p:o")),
        ("answers", AnswerEntry(event="answer", order="p:o", outcome="accepted")),
        ("runs", RunEntry(party="payment", speed=60.0)),
    ],
)
def test_ledgers_of_simulators_are_read(tmp_path: Path, name: str, entry: Entry) -> None:
    (tmp_path / f"{name}.jsonl").write_bytes(msgspec.json.encode(entry) + b"\n")
    errors: list[tuple[str, str]] = []
    found = ledgers.read(tmp_path, name, KINDS[name], errors)
    assert not errors
    assert found is not None
    (line,) = found
    fields = set(line.__struct_fields__) & set(entry.__struct_fields__)
    values = {field: getattr(line, field) for field in fields}
    assert values == {field: getattr(entry, field) for field in values}


def test_first_mention_of_an_order_counts(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_bytes(
        b"".join(
            msgspec.json.encode(AnswerEntry(event="answer", order=order, outcome="accepted", at=instant(at))) + b"\n"
            for order, at in (("p:o", 5_000), ("p:p", 6_000), ("p:o", 7_000))
        )
    )
    found = ledgers.read(tmp_path, "answers", AnswerLine, [])
    assert ledgers.first_mentions(found or ()) == {"p:o": 5_000, "p:p": 6_000}
