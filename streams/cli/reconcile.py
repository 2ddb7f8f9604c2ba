"""`dabbawala reconcile`: whether what was promised is kept, as the oracle judges it from outside."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from oracle import CannotRead
from oracle.command import judge_as_asked, judging_options
from streams.cli.errors import CommandError
from streams.embedded.errors import SetUpError
from streams.settings import SPEED_UP_FILE, Settings, WrongSetting


@click.command()
@judging_options
@click.pass_context
def reconcile(ctx: click.Context, /, **asked: Any) -> None:
    """Compare the topics with what the parties outside wrote down, and name what is not as promised.

    Reads Kafka and the ledgers, and asks no worker. The ledgers are those of .dabbawala/ledgers, if there are any,
    unless others are named; without --speed-up and DABBAWALA_SPEED_UP the speed is that of the last demo here. Exits
    with 1 if a promise is not kept, with 2 if nobody can tell.
    """
    try:
        settings = Settings.from_environment()
        kept = settings.directory / "ledgers"
        asked["ledgers"] = asked["ledgers"] or (kept if kept.is_dir() else None)
        if ctx.get_parameter_source("speed_up") is ParameterSource.DEFAULT:
            asked["speed_up"] = _speed_of_demo(settings.directory, asked["speed_up"])
        kafka = settings.bootstrap_servers or _embedded(settings)
        status = judge_as_asked(kafka, settings.topic_prefix, settings.application, **asked)
    except (CannotRead, SetUpError, WrongSetting) as wrong:
        raise CommandError(str(wrong)) from None
    ctx.exit(status)


def _speed_of_demo(directory: Path, otherwise: float) -> float:
    """How fast the last demo ran, if one ran here: else all its waits would look too short."""
    file = directory / SPEED_UP_FILE
    if not file.exists():
        return otherwise
    speed = float(file.read_text())
    click.echo(f"Judged as the demo ran here, {speed:g} times as fast as the real world (--speed-up).", err=True)
    return speed


def _embedded(settings: Settings) -> str:
    from streams.embedded.kafka import address  # needs Java's package, which a cluster does without

    return address(settings.directory)
