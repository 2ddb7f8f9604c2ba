"""The directory of an installation: it holds customers' names and addresses, so its user alone may read it."""

import os
import stat
from pathlib import Path

from streams.local.errors import SetUpError

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private(directory: Path) -> None:
    """Create a directory that only this user can enter, and from now on only files that only this user can read.

    A directory that exists is closed to others. Raises `SetUpError` if it belongs to another user.
    """
    os.umask(OTHERS)  # also for every process that this one starts
    try:
        directory.mkdir(parents=True, exist_ok=True)
        found = directory.stat()
        if found.st_uid != os.geteuid():
            raise SetUpError(
                f"{directory} belongs to another user, who could read and change what is kept there: set DABBAWALA_DIR "
                "to a directory of your own."
            )
        if found.st_mode & OTHERS:
            directory.chmod(stat.S_IRWXU)
    except OSError as error:
        raise SetUpError(f"{directory} cannot be used ({error.strerror}): set DABBAWALA_DIR to another.") from None
