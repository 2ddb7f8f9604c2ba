"""Worker slots: one for each process, the same one after a restart, and never two workers on one port."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from streams.local.errors import SetUpError
from streams.local.worker_slots import acquire_slot, worker_urls

WORKER = """
import sys, time
from pathlib import Path
from streams.local.worker_slots import acquire_slot
slot = acquire_slot(Path(sys.argv[1]))
print(slot.number, slot.port, slot.instance_id, flush=True)
time.sleep(60)
"""


def start_worker(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(directory)], stdout=subprocess.PIPE, text=True)


def printed(worker: subprocess.Popen[str]) -> list[str]:
    assert worker.stdout
    return worker.stdout.readline().split()


def test_concurrent_workers_get_different_slots_ports_and_ids(tmp_path: Path) -> None:
    workers = [start_worker(tmp_path) for _ in range(3)]
    try:
        slots = [printed(worker) for worker in workers]
        assert sorted(number for number, _, _ in slots) == ["1", "2", "3"]
        assert len({port for _, port, _ in slots}) == 3
        assert len({instance for _, _, instance in slots}) == 3
        assert worker_urls(tmp_path) == [f"http://127.0.0.1:{port}" for _, port, _ in sorted(slots)]
    finally:
        end(workers)


def test_slot_of_a_killed_worker_keeps_its_port_and_id(tmp_path: Path) -> None:
    first = start_worker(tmp_path)
    before = printed(first)
    end([first])
    assert worker_urls(tmp_path) == []
    second = start_worker(tmp_path)
    try:
        assert printed(second) == before
    finally:
        end([second])


def test_two_directories_never_share_an_instance_id(tmp_path: Path) -> None:
    one, other = (acquire_slot(tmp_path / name) for name in ("one", "other"))
    assert one.number == other.number == 1
    assert one.instance_id != other.instance_id


def test_port_of_another_program_is_skipped(tmp_path: Path) -> None:
    slot = acquire_slot(tmp_path)
    slot.release()
    with socket.create_server(("127.0.0.1", slot.port)):
        assert acquire_slot(tmp_path).port != slot.port


def test_requested_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(SetUpError, match=f"Port {port} is taken by another program: stop that one, or"):
            acquire_slot(tmp_path, port=port)


def test_rejected_port_leaves_the_slot_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(SetUpError):
        acquire_slot(tmp_path, port=server.getsockname()[1])
    assert acquire_slot(tmp_path).number == 1


def test_url_has_the_given_host(tmp_path: Path) -> None:
    slot = acquire_slot(tmp_path, host="worker.example")
    assert slot.url == f"http://worker.example:{slot.port}"
    assert (slot.datadir / "url").read_text() == f"{slot.url}\n"


def end(workers: list[subprocess.Popen[str]]) -> None:
    for worker in workers:
        worker.kill()
        worker.communicate()
