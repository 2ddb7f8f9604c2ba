"""The base of the commands for Faust: an error is one sentence and an exit code, never a traceback."""

import sys
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

from faust.cli.base import AppCommand

from streams.cli.errors import EXIT_FAILED, CommandError
from streams.cli.kafka import SENTENCES
from topics.text import plain_lines


class Command(AppCommand):
    """Base class of a command. Subclasses define `perform`."""

    abstract: ClassVar[bool] = True

    perform: Callable[..., None]
    """Run the command with the arguments and options of the command line, and print the result."""

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run the command, and exit with a sentence if it fails."""
        try:
            self.perform(*self.args, **self.kwargs)
        except SENTENCES as error:
            fail(error)
        sys.exit(0)


def fail(error: Exception) -> NoReturn:
    """Print the error and exit."""
    print(plain_lines(str(error)), file=sys.stderr)
    sys.exit(error.exit_code if isinstance(error, CommandError) else EXIT_FAILED)
