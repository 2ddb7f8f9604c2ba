"""`leave [NUMBER]`: remove a worker from the group, so that the others take its partitions over at once.

A worker that runs is stopped first. Without this command the group waits for the worker's return until its session
ends.
"""

import asyncio
import os
import time
from pathlib import Path

import click
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from exactly_once import LEAVE_SIGNAL
from exactly_once.kafka.membership import leave_group
from streams.cli.errors import CommandError
from streams.cli.kafka import read_settings, services_with_kafka
from streams.cli.output import echo
from streams.local.worker_slots import is_locked, running_workers

STOP_TIMEOUT_S = 10.0
"""Limit for a worker to stop, which takes at most five seconds."""
POLL_S = 0.05


@click.command()
@click.argument("number", required=False, type=click.IntRange(min=1))
def leave(number: int | None) -> None:
    """Stop the worker in `worker-NUMBER` for good; without NUMBER, the only worker that runs.

    The other workers take its partitions over at once. Without this command they wait until its session ends.
    """
    settings = read_settings()
    home = settings.directory / f"worker-{number}" if number else _only_one(settings.directory)
    if not (home / "instance-id").exists():
        raise CommandError(f"There is no {home}: no worker with this number has run here.")
    stopped = is_locked(home) and _stop(home)
    left = _leave_group((home / "instance-id").read_text().strip())  # the worker may not have been able to
    if stopped:
        echo(f"{home.name} has stopped and left the group.")
    elif left:
        echo(f"{home.name} does not run; it has left the group.")
    else:
        echo(f"{home.name} does not run, and is not in the group.")


def _only_one(directory: Path) -> Path:
    homes = running_workers(directory)
    if len(homes) == 1:
        return homes[0]
    if not homes:
        raise CommandError(f"No worker runs under {directory}: give the number of one that has stopped.")
    numbers = ", ".join(home.name.removeprefix("worker-") for home in homes)
    raise CommandError(f"Several workers run. Give the number of one: {numbers}.")


def _stop(home: Path) -> bool:
    """Stop a worker, whose lock ends with its process. False if it has ended by itself."""
    try:
        pid = int((home / "pid").read_text())
        os.kill(pid, LEAVE_SIGNAL)
    except PermissionError:
        raise CommandError(f"{home.name} belongs to another user: that user or root can stop it.") from None
    except (FileNotFoundError, ValueError, ProcessLookupError):  # its pid follows its lock
        if not is_locked(home):
            return False
        raise CommandError(f"{home.name} has not written its process id yet: try again in a moment.") from None
    until = time.monotonic() + STOP_TIMEOUT_S
    while is_locked(home):
        if time.monotonic() > until:
            raise CommandError(
                f"{home.name} (process {pid}) has not stopped within {STOP_TIMEOUT_S:.0f} s: see its log."
            )
        time.sleep(POLL_S)
    return True


def _leave_group(instance_id: str) -> bool:
    """Remove a member from the group. False if the group does not have it."""
    worker = services_with_kafka()
    group = worker.app.conf.id

    async def send_leave() -> bool:
        client = AIOKafkaClient(**worker.engine.client_settings)
        try:
            await client.bootstrap()
            return await leave_group(client, group, instance_id)
        finally:
            await client.close()

    try:
        return asyncio.run(send_leave())
    except KafkaError as error:
        raise CommandError(f"The group {group} did not answer: {error}.") from None
