"""Modes of files."""

import os
from pathlib import Path


def readable_by_others(directory: Path) -> list[str]:
    """Return the files and directories below `directory`, and it, that other users may read, change or enter."""
    found = [
        directory,
        *(Path(parent) / name for parent, folders, files in os.walk(directory) for name in folders + files),
    ]
    return [str(path) for path in found if path.stat().st_mode & 0o077]
