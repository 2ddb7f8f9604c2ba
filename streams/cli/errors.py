"""How a command ends that could not do what it was asked: one sentence on stderr, and the exit code."""

from typing import IO, Any

import click

NOT_SO = 1
"""Exit code of a reading that found something wrong, or nothing where that was the question."""
USAGE = 2


class CommandError(click.ClickException):
    """The command cannot do what it was asked to; the message says why and what would help."""

    exit_code = USAGE

    def show(self, file: IO[Any] | None = None) -> None:
        """Say it."""
        click.echo(self.message, file=file, err=True)


class NoWorker(CommandError):
    """No worker runs here, and none was named."""


class NotThere(CommandError):
    """What was asked for is not there."""

    exit_code = NOT_SO


class Refused(CommandError):
    """A worker decided against it: how things stand does not allow it."""
