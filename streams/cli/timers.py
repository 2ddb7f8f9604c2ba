"""`dabbawala timers`: timers that run, and when each is due."""

from typing import Any

import click
from rich.text import Text

from streams.cli.listing import list_command
from streams.cli.output import text, when


@click.group()
def timers() -> None:
    """Look at the timers that run."""


def _line(row: dict[str, Any]) -> list[Text]:
    return [text(row["timer"]), when(row["due"]), text(row["partition"])]


list_command(
    timers,
    "/v1/timers",
    "timers",
    ("timer", "due", "partition"),
    _line,
    help="""List timers, the next one due first.

    \b
    timer      OWNER/NAME: the order, region or driver that the timer belongs to, and the wait that it ends.
               ORDER/start starts the preparation; REGION/asked/ORDER forgets a request for a driver;
               DRIVER/silence looks whether a driver still sends events.
    due        the time at which the timer fires
    partition  the task that fires it
    """,
    empty="No timer is running.",
)
