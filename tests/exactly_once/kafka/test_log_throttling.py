"""During an outage a repeated message is logged once in a while, with its count."""

import logging

import pytest

from exactly_once.kafka import log_throttling


def test_repeated_messages_are_suppressed_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("exactly_once.kafka.log_throttling.time.monotonic", lambda: now[0])
    rate_limit = log_throttling.RateLimitFilter()

    def record(template: str, level: int = logging.ERROR) -> logging.LogRecord:
        return logging.LogRecord("aiokafka", level, "", 0, template, ("host",), None)

    assert rate_limit.filter(record("cannot connect to %s"))
    assert not any(rate_limit.filter(record("cannot connect to %s")) for _ in range(200))
    assert rate_limit.filter(record("another thing about %s"))
    assert all(rate_limit.filter(record("chatter about %s", logging.INFO)) for _ in range(3))
    now[0] += log_throttling.EVERY_S
    again = record("cannot connect to %s")
    assert rate_limit.filter(again)
    assert again.getMessage() == "cannot connect to host (and 200 more like this)"


def test_every_logger_of_aiokafka_has_the_filter_once() -> None:
    import aiokafka.client  # noqa: F401 - its loggers exist once it is imported

    log_throttling.throttle_aiokafka_logs()
    log_throttling.throttle_aiokafka_logs()
    for name in ("aiokafka", "aiokafka.conn", "aiokafka.consumer.group_coordinator"):
        assert [type(found) for found in logging.getLogger(name).filters].count(log_throttling.RateLimitFilter) == 1
