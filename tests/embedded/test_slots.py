"""Worker places: one a process, the same one again after a restart, and never two workers on a port."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from streams.embedded.errors import SetUpError
from streams.embedded.slots import take_worker_slot, worker_urls

WORKER = """
import sys, time
from pathlib import Path
from streams.embedded.slots import take_worker_slot
slot = take_worker_slot(Path(sys.argv[1]))
print(slot.number, slot.port, slot.instance_id, flush=True)
time.sleep(60)
"""


def start_worker(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(directory)], stdout=subprocess.PIPE, text=True)


def told(worker: subprocess.Popen[str]) -> list[str]:
    assert worker.stdout
    return worker.stdout.readline().split()


def test_workers_started_at_once_get_places_ports_and_ids_of_their_own(tmp_path: Path) -> None:
    workers = [start_worker(tmp_path) for _ in range(3)]
    try:
        places = [told(worker) for worker in workers]
        assert sorted(number for number, _, _ in places) == ["1", "2", "3"]
        assert len({port for _, port, _ in places}) == 3
        assert len({instance for _, _, instance in places}) == 3
        assert worker_urls(tmp_path) == [f"http://127.0.0.1:{port}" for _, port, _ in sorted(places)]
    finally:
        end(workers)


def test_a_killed_workers_place_is_taken_again_with_the_same_port_and_id(tmp_path: Path) -> None:
    first = start_worker(tmp_path)
    before = told(first)
    end([first])
    assert worker_urls(tmp_path) == []
    second = start_worker(tmp_path)
    try:
        assert told(second) == before
    finally:
        end([second])


def test_two_directories_never_share_an_instance_id(tmp_path: Path) -> None:
    one, other = (take_worker_slot(tmp_path / name) for name in ("one", "other"))
    assert one.number == other.number == 1
    assert one.instance_id != other.instance_id


def test_a_port_that_another_program_has_is_passed_over(tmp_path: Path) -> None:
    slot = take_worker_slot(tmp_path)
    slot.release()
    with socket.create_server(("127.0.0.1", slot.port)):
        assert take_worker_slot(tmp_path).port != slot.port


def test_a_port_asked_for_and_taken_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(SetUpError, match=f"Port {port} is taken by another program: stop that one, or"):
            take_worker_slot(tmp_path, port=port)


def test_a_refused_port_leaves_the_place_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(SetUpError):
        take_worker_slot(tmp_path, port=server.getsockname()[1])
    assert take_worker_slot(tmp_path).number == 1


def test_the_url_carries_the_name_under_which_others_reach_the_machine(tmp_path: Path) -> None:
    slot = take_worker_slot(tmp_path, host="worker.example")
    assert slot.url == f"http://worker.example:{slot.port}"
    assert (slot.datadir / "url").read_text() == f"{slot.url}\n"


def end(workers: list[subprocess.Popen[str]]) -> None:
    for worker in workers:
        worker.kill()
        worker.communicate()
