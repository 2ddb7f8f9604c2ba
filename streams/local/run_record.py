"""The record of a worker's speed for `dabbawala reconcile`: a line of `.dabbawala/ledgers/runs.jsonl`."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from streams.local.worker_slots import running_workers


def record_run(directory: Path, worker: str, speed: float) -> None:
    """Append the start of a worker, with its speed and the names of all workers that run now.

    ``speed`` is the factor by which its time is faster than real time. The worker must hold its slot under
    ``directory``, because it is listed too.
    """
    running = [home.name for home in running_workers(directory)]
    line = {"type": "Run", "at": datetime.now(UTC), "party": worker, "speed": speed, "running": running}
    file = directory / "ledgers" / "runs.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab", buffering=0) as ledger:  # each line is one write, because several processes append
        ledger.write(msgspec.json.encode(line) + b"\n")
