"""`dabbawala reconcile`: compare the topics with the ledgers of the outside parties, as the oracle judges them."""

from typing import Any

import click

from oracle import CannotRead
from oracle.cli import judge_as_asked, judging_options
from streams.cli.errors import CommandError
from streams.local.errors import SetUpError
from streams.local.kafka.broker import address
from streams.settings import Settings, WrongSetting


@click.command()
@judging_options
@click.pass_context
def reconcile(ctx: click.Context, /, **asked: Any) -> None:
    """Compare the topics with what the outside parties wrote down, and list every broken promise.

    Reads Kafka and the ledgers, and calls no worker. Without --ledgers it reads .dabbawala/ledgers, if that exists.
    Each worker and simulator leaves its speed on record there; --speed-up overrides the record. Orders that lived
    through several speeds are listed as not judged.

    \b
    Exit codes: 0  every promise that could be judged is kept
                1  a promise is broken
                2  the judgement failed; one sentence says why
    """
    try:
        settings = Settings.from_environment()
        kept = settings.directory / "ledgers"
        asked["ledgers"] = asked["ledgers"] or (kept if kept.is_dir() else None)
        kafka = settings.bootstrap_servers or _embedded(settings)
        status = judge_as_asked(kafka, settings.topic_prefix, settings.application, **asked)
    except (CannotRead, WrongSetting) as wrong:
        raise CommandError(str(wrong)) from None
    ctx.exit(status)


def _embedded(settings: Settings) -> str:
    try:
        return address(settings.directory)
    except SetUpError:
        raise CommandError(
            f"No Kafka runs under {settings.directory}: a demo stops its own when it ends. "
            "Run `make kafka`, then `dabbawala reconcile`; or set KAFKA_BOOTSTRAP_SERVERS for a cluster."
        ) from None
