"""The base of our commands for Faust: what goes wrong is one sentence and exit code 2, never a traceback.

What was asked for and is not there ends with 1, as with `dabbawala`.
"""

import sys
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

from faust.cli.base import AppCommand

from streams.catalogue_file import WrongCatalogue
from streams.cli.errors import USAGE, CommandError
from streams.embedded.errors import SetUpError

SENTENCES = (CommandError, SetUpError, WrongCatalogue)
"""Errors whose message is meant for the person at the keyboard."""


class Command(AppCommand):
    """A command of ours. Subclasses write `perform`."""

    abstract: ClassVar[bool] = True

    perform: Callable[..., None]
    """Do it, with the command line's arguments and options by name; print what came of it."""

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Perform it, and say what went wrong."""
        try:
            self.perform(*self.args, **self.kwargs)
        except SENTENCES as error:
            fail(error)
        sys.exit(0)


def fail(error: Exception) -> NoReturn:
    """Say what is wrong and exit."""
    print(error, file=sys.stderr)
    sys.exit(error.exit_code if isinstance(error, CommandError) else USAGE)
