"""Messages of a worker's start: a quiet log, then one banner with every address."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mode import Service

POLL_S = 0.1


def quiet_logs() -> None:
    """Log the start of services at DEBUG instead of INFO, and of Faust and mode only warnings."""

    def log_at_debug(self: Service, msg: str, *args: Any, **kwargs: Any) -> None:
        self.log.debug(msg, *args, **kwargs)

    Service._log_mundane = log_at_debug  # type: ignore[method-assign]
    for name in ("faust", "mode"):
        logging.getLogger(name).setLevel(logging.WARNING)


async def print_banner_when(ready: Callable[[], bool], url: str, kafka: str, home: Path, failpoints: str = "") -> None:
    """Print every address and the next commands on stderr as soon as the worker is ready."""
    while not ready():  # noqa: ASYNC110  (readiness has no event)
        await asyncio.sleep(POLL_S)
    logging.getLogger(__name__).info("%s", banner(url, kafka, home, failpoints))


def banner(url: str, kafka: str, home: Path, failpoints: str = "") -> str:
    """Return the addresses of a worker, its directory `home`, its failpoints, and the commands to try next."""
    faults = f"\n  FAULTS     {failpoints} (DABBAWALA_FAILPOINTS: this worker fails on purpose)" if failpoints else ""
    return f"""{home.name} is ready

  HTTP       {url}
  tables     {url}/table/
  Kafka      {kafka}
  directory  {home}{faults}

  Next: .venv/bin/dabbawala orders list      the newest orders
        .venv/bin/dabbawala tasks            each partition's worker and lag
        .venv/bin/dabbawala --help           every command
"""
