"""A whole installation listens on loopback alone, and other users of the machine cannot read what it keeps."""

import psutil

from tests.flow.client import Client
from tests.support.modes import readable_by_others
from tests.support.stack import Stack


def listening(pid: int) -> set[str]:
    """Return the addresses on which a process listens."""
    connections = psutil.Process(pid).net_connections("inet")
    return {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}


def test_worker_and_simulators_listen_on_loopback_alone(stack: Stack) -> None:
    processes = [*stack.workers.values(), *(stack.simulators[name] for name in ("payment", "pos"))]
    assert [listening(each.pid) for each in processes] == [{"127.0.0.1"}] * 3


def test_what_worker_and_simulators_write_is_private(stack: Stack) -> None:
    assert (stack.home(1) / "tasks").is_dir()
    assert stack.directory.stat().st_mode & 0o777 == 0o700
    assert readable_by_others(stack.home(1)) == []
    assert readable_by_others(stack.ledgers) == []


async def test_a_running_worker_refuses_web_pages_of_strangers(client: Client) -> None:
    answer = await client.http.get("/v1/orders", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    answer = await client.http.post("/v1/orders", content=b"{}")
    assert answer.status_code == 415
    answer = await client.http.get("/v1/orders", headers={"Host": "evil.example"})
    assert answer.status_code == 421
