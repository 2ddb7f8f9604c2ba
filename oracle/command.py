"""What judging is asked on a command line: its options, and how it is done."""

import asyncio
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from oracle.judging import LOOK_AGAIN_S, judge
from oracle.log import CannotRead
from oracle.report import Report
from oracle.showing import as_json, show

VIOLATED = 1
"""Exit code where something that was promised is not so."""
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

C = TypeVar("C", bound=Callable[..., Any])


class Since(click.ParamType):
    """A moment: one of RFC 3339, or how long ago."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """What is meant by a text."""
        if isinstance(value, datetime):
            return value
        if ago := re.fullmatch(r"(\d{1,6})([smhd])", value):
            return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is no moment: write 2026-01-31T12:00:00Z, or how long ago, as 90m, 2h or 3d", param, ctx
            )
        return moment if moment.tzinfo else moment.astimezone()


def judging_options(command: C) -> C:
    """Add the options that say what is judged, and how it is shown."""
    for option in reversed(
        (
            click.option(
                "--ledgers",
                type=click.Path(exists=True, file_okay=False, path_type=Path),
                help="The directory of the outside parties' ledgers; without one the topics alone are judged.",
            ),
            click.option("--final", is_flag=True, help="Nothing may be under way any more: the run is over."),
            click.option("--since", type=Since(), help="Judge what began from then on: a time, or 90m, 2h, 3d ago."),
            click.option("--only", metavar="TEXT", default="", help="Judge the orders that have this in their ids."),
            click.option(
                "--speed-up",
                type=click.FloatRange(min=0),
                metavar="FACTOR",
                envvar="DABBAWALA_SPEED_UP",
                default=1.0,
                show_default=True,
                help="How much faster than the real world it runs: what waits are divided by (DABBAWALA_SPEED_UP).",
            ),
            click.option(
                "--patience",
                type=click.FloatRange(min=0),
                default=30.0,
                show_default=True,
                metavar="SECONDS",
                help="How late anything may be, on top of the wait it has.",
            ),
            click.option(
                "--look-again",
                type=click.FloatRange(min=0),
                default=LOOK_AGAIN_S,
                show_default=True,
                metavar="SECONDS",
                help="For how long what looks wrong is looked at again: much is only under way.",
            ),
            click.option("--json", "in_json", is_flag=True, help="Print JSON, for scripts, instead of tables."),
        )
    ):
        command = option(command)
    return command


def judge_as_asked(kafka: str, prefix: str, application: str, **asked: Any) -> int:
    """Judge as asked by `judging_options`, and show what came of it; the exit code. `CannotRead` says why not."""
    only = asked["only"]
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it cannot do is said in a sentence, once
    in_json, patience_s, look_again_s = asked.pop("in_json"), asked.pop("patience"), asked.pop("look_again")
    report = _with_progress(
        lambda progress: asyncio.run(
            judge(
                kafka,
                prefix,
                application=application,
                patience_s=patience_s,
                look_again_s=look_again_s,
                progress=progress,
                **asked,
            )
        )
    )
    if in_json:
        click.echo(as_json(report))
    else:
        show(report)
    if report.violations:
        return VIOLATED
    if only and not report.books["orders"]:
        raise CannotRead(f"no order with {only!r} in its id began within what is judged")
    # a stranger may write anything to any topic, which lies there for a week: that is shown, and costs no verdict
    if unknown := sum(not each.foreign for each in report.unreadable):
        raise CannotRead(f"{unknown:,} of what there is cannot be read: nobody knows what it would tell")
    return 0


def _with_progress(work: Callable[[Callable[[str], None]], Report]) -> Report:
    """Tell on a terminal how it goes, and nobody else."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return work(lambda _: None)
    with console.status("asking Kafka") as status:
        return work(lambda text: status.update(text or "reading the ledgers"))
