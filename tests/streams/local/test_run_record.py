"""A worker records its speed, and the workers that run beside it."""

from pathlib import Path

import msgspec

from streams.local.run_record import record_run
from streams.local.worker_slots import acquire_slot


def test_record_names_the_running_workers(tmp_path: Path) -> None:
    first, second = acquire_slot(tmp_path), acquire_slot(tmp_path)
    record_run(tmp_path, second.datadir.name, 60.0)
    second.release()
    record_run(tmp_path, first.datadir.name, 1.0)
    lines = [msgspec.json.decode(line) for line in (tmp_path / "ledgers" / "runs.jsonl").read_bytes().splitlines()]
    assert [(line["type"], line["party"], line["speed"], line["running"]) for line in lines] == [
        ("Run", "worker-2", 60.0, ["worker-1", "worker-2"]),
        ("Run", "worker-1", 1.0, ["worker-1"]),
    ]
