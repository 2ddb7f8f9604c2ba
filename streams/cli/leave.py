"""`leave [NUMBER]`: a worker stops for good, and the others take its partitions over at once.

One that runs is told to stop and to leave the group. For one that is gone and will not be back the group is told, which
otherwise waits until its session ends.
"""

import asyncio
import os
import time
from pathlib import Path

import click
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from streams.cli.errors import CommandError
from streams.embedded.errors import SetUpError
from streams.embedded.slots import is_held, living_workers

WITHIN_S = 10.0
"""A worker stops within five seconds of being told."""
POLL_S = 0.05


@click.command()
@click.argument("number", required=False, type=click.IntRange(min=1))
def leave(number: int | None) -> None:
    """Stop the worker in `worker-NUMBER` for good; without NUMBER, the only one that runs.

    Its partitions go to the other workers at once. Without this they wait for its return until its session ends.
    """
    from streams.app import settings  # a command that is not called does without Faust

    home = settings.directory / f"worker-{number}" if number else _only_one(settings.directory)
    if not (home / "instance-id").exists():
        raise CommandError(f"There is no {home}: no worker of that number has run here.")
    stopped = is_held(home) and _stop(home)
    told = _tell_group((home / "instance-id").read_text().strip())  # also of one that could not do so itself
    if stopped:
        click.echo(f"{home.name} has stopped and left the group.")
    elif told:
        click.echo(f"{home.name} does not run; it has left the group.")
    else:
        click.echo(f"{home.name} does not run, and is not in the group.")


def _only_one(directory: Path) -> Path:
    homes = living_workers(directory)
    if len(homes) == 1:
        return homes[0]
    if not homes:
        raise CommandError(f"No worker runs under {directory}; for one that is gone, say its number.")
    raise CommandError(f"Say which is to leave: {', '.join(home.name.removeprefix('worker-') for home in homes)}.")


def _stop(home: Path) -> bool:
    """Its lock goes with its process. False if it has ended by itself."""
    from streams.engine.runtime import LEAVE_SIGNAL

    try:
        pid = int((home / "pid").read_text())
        os.kill(pid, LEAVE_SIGNAL)
    except PermissionError:
        raise CommandError(f"{home.name} is another user's: let that one, or root, stop it.") from None
    except (FileNotFoundError, ValueError, ProcessLookupError):  # who took the lock notes its pid a moment later
        if not is_held(home):
            return False
        raise CommandError(f"{home.name} does not say yet which process it is: try again in a moment.") from None
    until = time.monotonic() + WITHIN_S
    while is_held(home):
        if time.monotonic() > until:
            raise CommandError(f"{home.name} (process {pid}) has not stopped within {WITHIN_S:.0f} s: see its log.")
        time.sleep(POLL_S)
    return True


def _tell_group(instance_id: str) -> bool:
    """False if the group has no such member."""
    from streams.app import app, engine, settings
    from streams.cli.kafka import find_kafka, use_kafka

    async def tell() -> bool:
        from streams.engine.membership import leave_group

        client = AIOKafkaClient(**engine.client_settings)
        try:
            await client.bootstrap()
            return await leave_group(client, app.conf.id, instance_id)
        finally:
            await client.close()

    try:
        use_kafka(find_kafka(settings, click.echo))
        return asyncio.run(tell())
    except SetUpError as wrong:
        raise CommandError(str(wrong)) from None
    except KafkaError as error:
        raise CommandError(f"The group {app.conf.id} cannot be told: {error}.") from None
