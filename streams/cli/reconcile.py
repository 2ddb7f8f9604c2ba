"""`dabbawala reconcile`: whether what was promised is kept, as the oracle judges it from outside."""

from typing import Any

import click

from oracle import CannotRead
from oracle.command import judge_as_asked, judging_options
from streams.cli.errors import CommandError
from streams.embedded.errors import SetUpError
from streams.settings import Settings, WrongSetting


@click.command()
@judging_options
@click.pass_context
def reconcile(ctx: click.Context, /, **asked: Any) -> None:
    """Compare the topics with what the parties outside wrote down, and name what is not as promised.

    Reads Kafka and the ledgers, and asks no worker. The ledgers are those of .dabbawala/ledgers, if there are any,
    unless others are named. Exits with 1 if a promise is not kept, with 2 if nobody can tell.
    """
    try:
        settings = Settings.from_environment()
        kept = settings.directory / "ledgers"
        asked["ledgers"] = asked["ledgers"] or (kept if kept.is_dir() else None)
        kafka = settings.bootstrap_servers or _embedded(settings)
        status = judge_as_asked(kafka, settings.topic_prefix, settings.application, **asked)
    except (CannotRead, SetUpError, WrongSetting) as wrong:
        raise CommandError(str(wrong)) from None
    ctx.exit(status)


def _embedded(settings: Settings) -> str:
    from streams.embedded.kafka import address  # needs Java's package, which a cluster does without

    return address(settings.directory)
