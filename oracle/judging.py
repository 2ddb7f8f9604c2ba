"""Reads everything and judges it; where something is wrong, looks again: much of what looks wrong is only under way."""

import asyncio
import time
from datetime import datetime
from pathlib import Path

from oracle.facts import Period
from oracle.log import Log
from oracle.reading import Progress, Reading
from oracle.report import Report, report_of

LOOK_AGAIN_S = 20.0
"""Within this time, something has moved wherever something can: a worker that died is replaced after ten seconds."""
POLL_S = 0.5


async def judge(
    kafka: str,
    prefix: str = "dabbawala",
    *,
    application: str | None = None,
    ledgers: Path | None = None,
    final: bool = False,
    since: datetime | None = None,
    only: str = "",
    speed_up: float = 1.0,
    patience_s: float = 30.0,
    look_again_s: float = LOOK_AGAIN_S,
    progress: Progress = lambda _: None,
) -> Report:
    """Judge an installation by what its topics hold and its ledgers say. `CannotRead` says why that cannot be.

    ``kafka``: bootstrap servers. ``prefix``: of the topics; ``application``: of the changelogs, unless it is the same.
    ``ledgers``: the directory of the ledgers; without one, and for each that is not there, the topics alone are judged.
    ``final``: the run is over, nothing may be under way; else everything may take its wait and ``patience_s`` more.
    ``since``: what began before is not judged. ``only``: the orders that have this in their ids. ``speed_up``: what the
    waits are divided by. A look that finds something wrong is followed by others for ``look_again_s``. ``progress`` is
    told how it goes; an empty text says that nothing is to be told.
    """
    period = Period(now_ms=0, final=final, patience_ms=round(patience_s * 1000), speed_up=speed_up)
    async with Log(kafka) as log:
        reading = Reading(log, prefix, application or prefix, ledgers, period, since, only, progress)
        await reading.open()
        await reading.go_on()
        facts, began, lagging = reading.facts, time.monotonic(), reading.lagging()
        report = report_of(facts)
        while report.violations or lagging:
            if time.monotonic() - began > look_again_s:
                facts.stuck, facts.stuck_s = set(lagging), time.monotonic() - began
                return report_of(facts)
            await asyncio.sleep(POLL_S)
            await reading.go_on()
            now = reading.lagging()
            lagging = {where: position for where, position in lagging.items() if now.get(where) == position}
            report = report_of(facts)
        return report
