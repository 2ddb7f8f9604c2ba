"""Ledgers are read as they are: what is odd in one is told of, and the rest of it counts."""

from pathlib import Path

import msgspec
import pytest

from oracle import ledgers
from oracle.ledgers import KINDS, AnswerLine, PaymentLine
from simulators.ledger import AnswerEntry, Entry, PaymentEntry, TicketEntry, TripEntry
from topics.records import instant

CHARGED = b'{"at":"2027-01-15T08:00:00Z","key":"k","kind":"charge","order":"p:o","outcome":"charged","amount":5}'


def read(directory: Path, content: bytes) -> tuple[list[PaymentLine] | None, list[tuple[str, str]]]:
    """The lines of a payment ledger with this content, and what is wrong with it."""
    (directory / "payment.jsonl").write_bytes(content)
    wrong: list[tuple[str, str]] = []
    return ledgers.read(directory, "payment", PaymentLine, wrong), wrong


def test_a_ledger_that_is_not_there_is_told_from_an_empty_one(tmp_path: Path) -> None:
    assert ledgers.read(tmp_path, "pos", PaymentLine, []) is None
    assert read(tmp_path, b"") == ([], [])


def test_a_line_knows_where_it_is(tmp_path: Path) -> None:
    found, wrong = read(tmp_path, CHARGED + b"\n" + CHARGED + b"\n")
    assert found is not None
    assert [line.where for line in found] == ["payment.jsonl line 1", "payment.jsonl line 2"]
    assert found[0].at_ms == 1_800_000_000_000
    assert not wrong


def test_a_last_line_without_its_end_is_still_being_written(tmp_path: Path) -> None:
    found, wrong = read(tmp_path, CHARGED + b"\n" + CHARGED[:40])
    assert found is not None
    assert len(found) == 1
    assert not wrong


@pytest.mark.parametrize("odd", [b"{", b"\xff\xfe", b"[]", b'{"at":"yesterday"}', b""])
def test_a_line_that_cannot_be_read_is_told_of_and_the_others_count(tmp_path: Path, odd: bytes) -> None:
    found, wrong = read(tmp_path, CHARGED + b"\n" + odd + b"\n" + CHARGED + b"\n")
    assert found is not None
    assert [line.number for line in found] == [1, 3]
    assert [where for where, _ in wrong] == ["payment.jsonl line 2"]


def test_a_ledger_that_nobody_may_read_is_told_of_and_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "pos.jsonl").mkdir()  # for root may read every file
    wrong: list[tuple[str, str]] = []
    assert ledgers.read(tmp_path, "pos", PaymentLine, wrong) is None
    assert wrong == [("pos.jsonl", "Is a directory")]


def test_fields_that_are_not_known_are_passed_over(tmp_path: Path) -> None:
    found, wrong = read(tmp_path, CHARGED[:-1] + b',"mood":"fine","number":"none","file":5}\n')
    assert found is not None
    assert found[0].amount == 5
    assert not wrong


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("payment", PaymentEntry(key="k", kind="charge", order="p:o", outcome="charged")),
        ("pos", TicketEntry(event="finished", order="p:o", key="k", restaurant="r")),
        ("trips", TripEntry(driver="d", event="assigned", delivery="p:o")),
        ("answers", AnswerEntry(event="answer", order="p:o", outcome="accepted")),
    ],
)
def test_what_the_simulators_write_is_read(tmp_path: Path, name: str, entry: Entry) -> None:
    (tmp_path / f"{name}.jsonl").write_bytes(msgspec.json.encode(entry) + b"\n")
    wrong: list[tuple[str, str]] = []
    found = ledgers.read(tmp_path, name, KINDS[name], wrong)
    assert not wrong
    assert found is not None
    (line,) = found
    ours = {field: getattr(line, field) for field in line.__struct_fields__ if field not in ("file", "number")}
    assert ours == {field: getattr(entry, field) for field in ours}


def test_the_first_mention_of_an_order_counts(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_bytes(
        b"".join(
            msgspec.json.encode(AnswerEntry(event="answer", order=order, outcome="accepted", at=instant(at))) + b"\n"
            for order, at in (("p:o", 5_000), ("p:p", 6_000), ("p:o", 7_000))
        )
    )
    found = ledgers.read(tmp_path, "answers", AnswerLine, [])
    assert ledgers.mentioned(found or ()) == {"p:o": 5_000, "p:p": 6_000}
