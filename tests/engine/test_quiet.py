"""In an outage the same message comes once in a while, with how many there were."""

import logging

import pytest

from streams.engine import quiet


def test_a_message_repeated_is_kept_back_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("streams.engine.quiet.time.monotonic", lambda: now[0])
    said = quiet.OncePerWhile()

    def record(template: str, level: int = logging.ERROR) -> logging.LogRecord:
        return logging.LogRecord("aiokafka", level, "", 0, template, ("host",), None)

    assert said.filter(record("cannot connect to %s"))
    assert not any(said.filter(record("cannot connect to %s")) for _ in range(200))
    assert said.filter(record("another thing about %s"))
    assert all(said.filter(record("chatter about %s", logging.INFO)) for _ in range(3))
    now[0] += quiet.EVERY_S
    again = record("cannot connect to %s")
    assert said.filter(again)
    assert again.getMessage() == "cannot connect to host (and 200 more like this)"


def test_every_logger_of_aiokafka_has_the_filter_once() -> None:
    import aiokafka.client  # noqa: F401 - its loggers exist once it is imported

    quiet.quieten()
    quiet.quieten()
    for name in ("aiokafka", "aiokafka.conn", "aiokafka.consumer.group_coordinator"):
        assert [type(found) for found in logging.getLogger(name).filters].count(quiet.OncePerWhile) == 1
