"""The messages of a worker's start: one banner with every address, and no log line for each service."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from mode import Service

from streams.cli.banner import banner, print_banner_when, quiet_logs

URL, KAFKA, HOME = "http://127.0.0.1:6066", "127.0.0.1:9092", Path("/data/worker-1")


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Quieten the logs, and restore them."""
    loggers = [logging.getLogger(name) for name in ("faust", "mode")]
    before = [logger.level for logger in loggers]
    monkeypatch.setattr(Service, "_log_mundane", Service._log_mundane)
    quiet_logs()
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def test_banner_names_every_address_and_the_next_commands() -> None:
    text = banner(URL, KAFKA, HOME)
    assert text.startswith("worker-1 is ready\n")
    for address in (URL, f"{URL}/table/", KAFKA, str(HOME), "dabbawala orders list", "dabbawala --help"):
        assert address in text


async def test_banner_is_logged_once_the_worker_is_ready(caplog: pytest.LogCaptureFixture) -> None:
    ready = asyncio.Event()
    with caplog.at_level(logging.INFO):
        printing = asyncio.create_task(print_banner_when(ready.is_set, URL, KAFKA, HOME))
        await asyncio.sleep(0)
        assert not caplog.records
        ready.set()
        await printing
    assert [record.getMessage() for record in caplog.records] == [banner(URL, KAFKA, HOME)]


@pytest.mark.usefixtures("quiet")
async def test_start_of_a_service_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        service = Service()
        await service.start()
        await service.stop()
    assert not caplog.records
    assert not logging.getLogger("faust").isEnabledFor(logging.INFO)
