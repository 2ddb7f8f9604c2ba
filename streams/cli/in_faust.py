"""What `faust -A streams.app` can do besides Faust's own commands: all of `dabbawala`'s, our worker, tables.

Importing this registers them.
"""

from faust.cli.base import cli

from streams.cli import table, worker
from streams.cli.groups import NAMES, load

__all__ = ["table", "worker"]

for name in NAMES:
    cli.add_command(load(name), name)
