"""Failed commands: one sentence on stderr, and an exit code."""

from typing import IO, Any

import click

from topics.text import plain_lines

EXIT_FALSE = 1
"""The thing that was asked for does not exist, or a check failed."""
EXIT_FAILED = 2
EXIT_INTERRUPTED = 130


class CommandError(click.ClickException):
    """The command failed; the message says why and what would help."""

    exit_code = EXIT_FAILED

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message on stderr."""
        click.echo(plain_lines(self.message), file=file, err=True)


class NoWorker(CommandError):
    """No worker runs here, and `DABBAWALA_URL` names none."""


class NotFound(CommandError):
    """The thing that was asked for does not exist."""

    exit_code = EXIT_FALSE


class Refused(CommandError):
    """A worker refused the command: the present state does not allow it."""
