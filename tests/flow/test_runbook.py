"""Every block of commands in docs/runbook.md is run, in the order of a life: start, scale, free, replay, restore."""

import asyncio
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.access.keys import read_keys
from streams.demo.processes import Child
from streams.local.kafka.broker import EmbeddedKafka
from tests.conftest import LIB
from tests.flow.client import Client, an_order, order_id
from tests.flow.reading import WITHIN_S
from tests.support.stack import ROOT, Stack, installed, switch_off, switch_on
from topics.families import PAYMENTS
from topics.restaurants import Restaurant

RUNBOOK = ROOT / "docs" / "runbook.md"
POLL_S = 0.1
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SPEED = 60.0
STARTS = {"$ faust -A streams.app worker -l info"}
"""Blocks that start a process; the test starts it."""


def sections() -> dict[str, list[str]]:
    """Return heading -> its blocks of commands, without those that start a process."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^## ", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        blocks = FENCE.findall(text)
        found[heading] = ["\n".join(map(str.strip, code.splitlines())) for language, code in blocks if language == "sh"]
    return found


def test_blocks_that_are_not_run_only_start_a_process() -> None:
    others = {code.strip() for language, code in FENCE.findall(RUNBOOK.read_text()) if language != "sh"}
    assert others <= STARTS


def test_the_table_leads_to_every_section() -> None:
    anchors = set(re.findall(r"\]\(#([\w-]+)\)", RUNBOOK.read_text().partition("\n## ")[0]))
    assert anchors == {heading.lower().replace(" ", "-") for heading in sections()}


class Reader:
    """Somebody who follows the runbook, section by section, with the variables that it uses."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.variables = {
            "DABBAWALA_DIR": str(directory),
            "BACKUP": str(directory.parent / "backup.tar"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        self._left = sections()

    def follow(self, heading: str) -> str:
        """Run the next block of a section; return its output."""
        block = self._left[heading].pop(0)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            env={**os.environ, **self.variables},
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert done.returncode == 0, f"{heading}: {block}\n{done.stdout}"
        return done.stdout

    def unread(self) -> list[str]:
        """Return the headings with blocks that were not run."""
        return [heading for heading, blocks in self._left.items() if blocks]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Return a reader with an empty installation, whose Kafka ends with the test."""
    home = tmp_path / "home"
    (home / "kafka").mkdir(parents=True)
    (home / "kafka" / "lib").symlink_to(LIB)
    yield Reader(home)
    EmbeddedKafka(home, lib=LIB).kill()


async def test_every_command_of_the_runbook_works(reader: Reader, tiffin: Restaurant) -> None:
    reader.follow("Start")
    kafka = (reader.directory / "kafka" / "address").read_text().strip()
    with installed(kafka, f"runbook-{uuid.uuid4().hex[:8]}", reader.directory, SPEED) as stack:
        reader.variables |= {name: value for name, value in stack.environment.items() if name.startswith("DABBAWALA_")}
        stack.start_payment()
        stack.start_pos()
        reader.follow("Start")
        stack.start_worker()
        stack.start_drivers(12)
        for _ in range(2):
            reader.follow("Start")
        reader.variables["PROVIDER_KEY"] = key_of("my-shop", reader)
        await scale(reader, stack)
        await upgrade(reader, stack)
        await free_an_order(reader, stack, tiffin)
        await replay(reader, stack, tiffin)
        while "Alerts" in reader.unread():
            reader.follow("Alerts")
        for _ in range(2):
            reader.follow("Drain")
        await back_up_and_restore(reader, stack)
    assert reader.unread() == []


def key_of(party: str, reader: Reader) -> str:
    """Return the name of a party's key."""
    return next(key.name for key in read_keys(reader.directory / "keys.json") if key.party == party)


async def scale(reader: Reader, stack: Stack) -> None:
    """Add a worker, and let it go."""
    second = stack.start_worker(2)
    assert stack.url_of(2) in reader.follow("Scale")
    reader.follow("Scale")
    await ended(second)


async def upgrade(reader: Reader, stack: Stack) -> None:
    """Restart the worker, as for a new version."""
    reader.follow("Upgrade")
    await ended(stack.workers[1])
    stack.start_worker(wait=False)
    reader.follow("Upgrade")
    assert "violations" in reader.follow("Upgrade")


async def free_an_order(reader: Reader, stack: Stack, kitchen: Restaurant) -> None:
    """Free an order of a restaurant that did not answer."""
    switch_on(stack.pos_url, silent=1.0)
    reader.variables["ORDER"] = order_id("stuck")
    async with Client(stack) as client:
        await client.place(an_order(kitchen, "stuck"))
        await client.reaches(order_id("stuck"), "SCHEDULED")

        async def asked() -> bool:
            return bool((await client.get("/v1/calls", order=order_id("stuck")))["calls"])

        await client.until(asked, "the restaurant is asked")
        told = reader.follow("Free an order")
        assert order_id("stuck") in told
        reader.follow("Free an order")  # first: once the restaurant answers, the order may go on by itself
        switch_off(stack.pos_url)
        await client.reaches(order_id("stuck"), "DELIVERED")


async def replay(reader: Reader, stack: Stack, kitchen: Restaurant) -> None:
    """Replay a letter whose cause is gone, and discard one that can never be applied."""
    async with Client(stack) as client:
        early = {"type": "Charged", "order": order_id("early"), "charge_id": "c-1", "amount": 1, "currency": "INR"}
        await client.produce(PAYMENTS, early, key=order_id("early"))
        await client.produce(PAYMENTS, b"\x00\xff", key=order_id("early"))

        async def both() -> dict[str, str]:
            letters = (await client.get("/v1/dead-letters"))["dead_letters"]
            return {letter["reason"]: letter["letter"] for letter in letters} if len(letters) > 1 else {}

        known = await client.until(both, "both records are dead letters")
        reader.variables["LETTER"] = next(known[reason] for reason in known if "no such order" in reason)
        reader.variables["HOPELESS_LETTER"] = next(known[reason] for reason in known if "no such order" not in reason)
        await client.place(an_order(kitchen, "early"))
        for _ in range(2):
            reader.follow("Replay")


async def back_up_and_restore(reader: Reader, stack: Stack) -> None:
    """Lose what came after a backup, and nothing else."""
    stack.workers[1].stop()
    reader.follow("Back up")
    stack.start_worker()
    async with Client(stack) as client:
        await client.reaches(order_id("stuck"), "DELIVERED")
    stack.workers[1].stop()
    reader.follow("Restore")
    stack.start_worker()
    async with Client(stack) as client:
        await client.reaches(order_id("stuck"), "DELIVERED")


async def ended(child: Child) -> None:
    """Wait until a process has ended."""
    deadline = time.monotonic() + WITHIN_S
    while child.status is None:
        assert time.monotonic() < deadline, f"{child.name} runs on"
        await asyncio.sleep(POLL_S)
