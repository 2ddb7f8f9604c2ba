"""Agent of the topic `orders`: the id of an order that was placed without one."""

from typing import Any, NamedTuple, cast

import pytest

from exactly_once import Record, RejectRecord, Task
from processors.used_keys import timer_name
from streams.agents.orders import _complete, timer_due
from tests.processors.cases import placed
from tests.support.services import unconnected_services


class Sent(NamedTuple):
    """A record with these headers."""

    headers: tuple[tuple[str, bytes | None], ...]


def id_of(*keys: bytes | None, name: str = "idempotency-key") -> str | None:
    """Return the id of an order whose record has these keys."""
    record = cast(Record, cast(Any, Sent(tuple((name, key) for key in keys))))
    return _complete(placed(external_id=None), record).external_id


def test_keys_of_different_bytes_are_different_orders() -> None:
    keys = [bytes([0, byte]) for byte in range(256)] + [b"\xef\xbf\xbd", b"a" * 255]
    assert len({id_of(key) for key in keys}) == len(keys)


@pytest.mark.parametrize("name", ["idempotency-key", "Idempotency-Key"])
def test_key_of_text_gives_the_id_that_http_gives(name: str) -> None:
    assert id_of(b"abc", name=name) == "ik-ba7816bf8f01cfea414140de5dae2223"


@pytest.mark.parametrize("keys", [(), (b"",), (None,), (b"a" * 256,), (b"", b"a")], ids=repr)
def test_order_without_a_key_is_refused_with_advice(keys: tuple[bytes | None, ...]) -> None:
    with pytest.raises(RejectRecord, match="/external_id: give the order an external_id, or the record"):
        id_of(*keys)


def test_order_with_an_id_needs_no_key() -> None:
    record = cast(Record, cast(Any, Sent((("idempotency-key", None),))))
    assert _complete(placed(), record) == placed()


def test_the_timer_of_a_key_deletes_its_row() -> None:
    written: list[tuple[object, ...]] = []

    class Writing:
        def put(self, *row: object) -> None:
            written.append(row)

    timer_due(unconnected_services(), cast(Task, Writing()), timer_name("my-shop:ik-1"))
    assert written == [("used_keys", b"my-shop:ik-1", None)]
