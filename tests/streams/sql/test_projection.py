"""Rows as a reader sends them: masked, and only the fields that are asked for."""

import msgspec
import pytest

from processors.order import Order, Stage
from streams.sql import projection
from streams.sql.description import columns_of, summaries
from streams.sql.projection import Opened, lines_of
from streams.sql.tables import DURATIONS, TABLES, VIEWS
from streams.web.masking import masked
from tests.streams.web.test_masking import MARK, PLACED
from topics.places import Position
from topics.records import write

OPENED = Opened(partition=1, worker="http://w", as_of_ms=5)
ORDER = Order(
    id="shop:1",
    stage=Stage.CREATED,
    body_hash="h",
    placed_ms=1,
    updated_ms=2,
    restaurant="r",
    region="g",
    pos_url="u",
    pickup=Position(18.93799, 72.83599),
    dropoff=Position(18.93799, 72.83599),
    preparation_ms=1,
    travel_ms=1,
    start_ms=1,
)


def sent(table: str, rows: dict[str, bytes], *fields: str, is_masked: bool = True) -> dict[str, list[object]]:
    """Return the fields of rows as a reader sends them."""
    pairs = [(key.encode(), value) for key, value in rows.items()]
    lines = list(lines_of(OPENED, TABLES[table], fields, pairs, is_masked=is_masked, limit=None))
    assert msgspec.json.decode(lines[0]) == {"partition": 1, "worker": "http://w", "as_of_ms": 5}
    assert msgspec.json.decode(lines[-1]) == {"count": len(rows)}
    found: dict[str, list[object]] = {}
    for line in lines[1:-1]:
        for field, values in msgspec.json.decode(line)["rows"].items():
            found.setdefault(field, []).extend(values)
    return found


def test_fields_have_their_values_and_defaults() -> None:
    rows = {"shop:1": msgspec.json.encode(ORDER)}
    found = sent("orders", rows, "key", "stage", "version", "eta_ms", "attention", "pickup")
    assert found == {
        "key": ["shop:1"],
        "stage": ["CREATED"],
        "version": [0],
        "eta_ms": [None],
        "attention": [[]],
        "pickup": [{"lat": 18.93799, "lon": 72.83599}],
    }


def test_personal_fields_are_masked_as_in_views() -> None:
    place = sent("orders", {"shop:1": msgspec.json.encode(ORDER)}, "dropoff")
    assert place == {"dropoff": [{"lat": 18.94, "lon": 72.84}]}
    rows = {"shop:1": write(PLACED)}
    found = sent("bodies", rows, "customer", "items")
    shown = msgspec.json.decode(msgspec.json.encode(masked(PLACED)))
    assert found == {"customer": [shown["customer"]], "items": [shown["items"]]}
    everything = sent("bodies", rows, *TABLES["bodies"].fields)
    assert MARK not in msgspec.json.encode(everything).decode()
    revealed = sent("bodies", rows, *TABLES["bodies"].fields, is_masked=False)
    assert MARK in msgspec.json.encode(revealed).decode()


def test_bodies_of_calls_are_masked() -> None:
    row = msgspec.json.encode({"request": {"kind": "prepare", "body": {"name": MARK}}, "attempt": 2, "due_ms": 7})
    assert sent("calls", {"shop:1/prepare": row}, "body", "attempts") == {"body": ["***"], "attempts": [1]}
    assert sent("calls", {"shop:1/prepare": row}, "body", is_masked=False) == {"body": [{"name": MARK}]}


def test_dead_letters_hide_records_and_exceptions() -> None:
    headers = [["dead-letter.reason", f"boom {MARK}".encode()], ["exception.class", b"Boom"], ["x", MARK.encode()]]
    row = msgspec.json.encode({"at_ms": 1, "key": b"k y", "value": MARK.encode(), "headers": headers})
    names = tuple(TABLES["dead_letters"].fields)
    found = sent("dead_letters", {"0/01": row}, *names)
    assert MARK not in msgspec.json.encode(found).decode()
    assert (found["key"], found["reason"], found["record"]) == (["0/01"], ["Boom"], [{"hidden_bytes": len(MARK)}])
    assert sent("dead_letters", {"0/01": row}, *names, is_masked=False)["record"] == [MARK]


def test_timers_and_positions_have_named_fields() -> None:
    timer = (99).to_bytes(8, "big").decode() + "shop:1/wait"
    assert sent("timers", {timer: b"order"}, "key", "due_ms", "payload") == {
        "key": ["shop:1/wait"],
        "due_ms": [99],
        "payload": ["order"],
    }
    assert sent("positions", {"t": b"7"}, "next_offset", "topic_id") == {"next_offset": [7], "topic_id": [""]}


def test_many_rows_are_sent_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "CHUNK_ROWS", 3)
    rows = {f"shop:{number}": msgspec.json.encode(ORDER) for number in range(7)}
    pairs = [(key.encode(), value) for key, value in rows.items()]
    lines = list(lines_of(OPENED, TABLES["orders"], ("key",), pairs, is_masked=True, limit=None))
    assert [len(msgspec.json.decode(line)["rows"]["key"]) for line in lines[1:-1]] == [3, 3, 1]
    assert msgspec.json.decode(list(lines_of(OPENED, TABLES["orders"], (), pairs, is_masked=True, limit=2))[-1]) == {
        "count": 2
    }


def test_every_time_in_milliseconds_is_a_time_or_a_duration() -> None:
    for table in TABLES.values():
        for column in [name for name in table.columns if name.endswith("_ms")]:
            assert (column in DURATIONS) != (f"{column[:-3]}_at" in table.columns), (table.name, column)


def test_descriptions_come_from_the_docstrings() -> None:
    assert {name for name, _ in summaries()} == {*TABLES, *VIEWS}
    described = {
        each.name: each.meaning for each in columns_of("orders", [(name, "") for name in TABLES["orders"].columns])
    }
    assert described["journal"] == "Number of lines in the journal."
    assert described["age_s"].startswith("Seconds since it was placed")
