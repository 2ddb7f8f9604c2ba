"""Command-line options of the oracle, and running it with them."""

import asyncio
import logging
import math
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from oracle.log import CannotRead
from oracle.rendering import as_json, show
from oracle.report import Report
from oracle.run import LOOK_AGAIN_S, judge

VIOLATED = 1
"""Exit code if a promise is broken."""
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

C = TypeVar("C", bound=Callable[..., Any])


class Since(click.ParamType):
    """A time in RFC 3339, or a duration before now."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time that the text means."""
        if isinstance(value, datetime):
            return value
        if duration := re.fullmatch(r"(\d{1,6})([smhd])", value):
            return datetime.now(UTC) - timedelta(**{UNITS[duration[2]]: int(duration[1])})
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is not a time: write 2026-01-31T12:00:00Z, or a time before now as 90m, 2h or 3d",
                param,
                ctx,
            )
        return moment if moment.tzinfo else moment.astimezone()


def judging_options(command: C) -> C:
    """Add the options of `judge_as_asked` to a command."""
    for option in reversed(
        (
            click.option(
                "--ledgers",
                type=click.Path(exists=True, file_okay=False, path_type=Path),
                help="Directory of the outside parties' ledgers. Without it, only the topics are judged.",
            ),
            click.option("--final", is_flag=True, help="The run is over: nothing may be in progress any more."),
            click.option("--since", type=Since(), help="Judge only what began since: a time, or 90m, 2h, 3d ago."),
            click.option("--only", metavar="TEXT", default="", help="Judge only the orders with TEXT in their ids."),
            click.option(
                "--speed-up",
                type=click.FloatRange(min=0),
                metavar="FACTOR",
                help="Divide every wait by this factor.  [default: the speed that each run left on record]",
            ),
            click.option(
                "--patience",
                type=click.FloatRange(min=0),
                default=30.0,
                show_default=True,
                metavar="SECONDS",
                help="Tolerance, in addition to each wait.",
            ),
            click.option(
                "--look-again",
                type=click.FloatRange(min=0),
                default=LOOK_AGAIN_S,
                show_default=True,
                metavar="SECONDS",
                help="Time to look again at what looks wrong, because it may be in progress.",
            ),
            click.option("--json", "in_json", is_flag=True, help="Print JSON, for scripts, instead of tables."),
        )
    ):
        command = option(command)
    return command


def judge_as_asked(kafka: str, prefix: str, application: str, **asked: Any) -> int:
    """Judge with the options of `judging_options`, show the report, and return the exit code.

    Raises `CannotRead` if no verdict is possible.
    """
    only = asked["only"]
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the command shows failures as one sentence
    in_json, patience_s, look_again_s = asked.pop("in_json"), asked.pop("patience"), asked.pop("look_again")
    report = _with_progress(
        lambda progress: asyncio.run(
            judge(
                kafka,
                prefix,
                application=application,
                unrecorded_speed=_speed_of_environment(),
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
        raise CannotRead(f"no order with {only!r} in its id began in the judged period")
    # A stranger's record stays on the topic for a week. The report shows it; the verdict does not depend on it.
    if unknown := sum(not each.foreign for each in report.unreadable):
        raise CannotRead(f"{unknown:,} of the records and ledger lines cannot be read, so no verdict is possible")
    return 0


def _speed_of_environment() -> float:
    """Return the speed of runs without a record, from DABBAWALA_SPEED_UP."""
    text = os.environ.get("DABBAWALA_SPEED_UP") or "1"
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0 <= speed < math.inf:
        raise CannotRead(f"DABBAWALA_SPEED_UP is {text!r}: write a number from 0 up.")
    return speed


def _with_progress(work: Callable[[Callable[[str], None]], Report]) -> Report:
    """Do the work, with its progress shown if stderr is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return work(lambda _: None)
    with console.status("asking Kafka") as status:
        return work(lambda text: status.update(text or "reading the ledgers"))
