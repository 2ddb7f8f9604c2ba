"""A worker with changed topics leaves the group before it joins; otherwise it would keep its old assignment."""

from pathlib import Path
from typing import Any

import pytest

from exactly_once.kafka import membership


class FakeClient:
    def __init__(self, **_: Any) -> None: ...

    async def bootstrap(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Instance ids that have left the group."""
    found: list[str] = []

    async def leave_group(client: Any, group: str, instance_id: str) -> bool:
        found.append(instance_id)
        return True

    monkeypatch.setattr(membership, "AIOKafkaClient", FakeClient)
    monkeypatch.setattr(membership, "leave_group", leave_group)
    return found


async def test_a_worker_leaves_first_only_if_its_topics_changed(tmp_path: Path, left: list[str]) -> None:
    file = tmp_path / "worker" / "sources"

    async def start(*sources: str) -> None:
        await membership.leave_with_other_sources({}, "group", "worker-1", file, sources)

    await start("b", "a")
    await start("a", "b")
    assert left == []
    await start("a", "b", "new")
    assert left == ["worker-1"]
    await start("a", "b", "new")
    await start("a", "new")
    assert left == ["worker-1", "worker-1"]
