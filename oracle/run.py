"""Judgement of an installation. It looks again at what looks wrong, because that may only be in progress."""

import asyncio
import time
from datetime import datetime
from pathlib import Path

from oracle.facts import Period
from oracle.loading import Loader, Progress
from oracle.log import Log
from oracle.report import Report, report_of

LOOK_AGAIN_S = 20.0
"""Time in which every partition makes progress if it can: a dead worker is replaced after ten seconds."""
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
    speed_up: float | None = None,
    unrecorded_speed: float = 1.0,
    patience_s: float = 30.0,
    look_again_s: float = LOOK_AGAIN_S,
    progress: Progress = lambda _: None,
) -> Report:
    """Judge an installation by its topics and ledgers. Raises `CannotRead` if that is not possible.

    - ``kafka``: bootstrap servers.
    - ``prefix``: prefix of the topics' names; ``application``: that of the changelogs' names, by default the same.
    - ``ledgers``: directory of the ledgers. Checks whose ledger does not exist are not made.
    - ``final``: the run is over, and nothing may be in progress. Otherwise everything may take its wait and
      ``patience_s`` more.
    - ``since``: orders that began before are not judged. ``only``: only orders with this text in their ids are judged.
    - ``speed_up``: all waits are divided by it. By default the speed on record (``runs.jsonl``) is used, and
      ``unrecorded_speed`` for an installation without a record.
    - ``look_again_s``: time to look again while something is wrong.
    - ``progress``: called with a text for the person who waits; the text is empty if there is nothing to show.
    """
    period = Period(now_ms=0, final=final, patience_ms=round(patience_s * 1000))
    async with Log(kafka) as log:
        loader = Loader(log, prefix, application or prefix, ledgers, period, since, only, progress)
        loader.assume_speed(unrecorded_speed, speed_up)
        await loader.open()
        await loader.go_on()
        facts, began, lagging = loader.facts, time.monotonic(), loader.lagging()
        report = report_of(facts)
        while report.violations or lagging:
            left_s = look_again_s - (time.monotonic() - began)
            progress(f"looking again for {max(0.0, left_s):.0f} s: what looks wrong may still be in progress")
            if left_s < 0:
                facts.stuck, facts.stuck_s = set(lagging), time.monotonic() - began
                return report_of(facts)
            await asyncio.sleep(POLL_S)
            await loader.go_on()
            now = loader.lagging()
            lagging = {where: position for where, position in lagging.items() if now.get(where) == position}
            report = report_of(facts)
        return report
