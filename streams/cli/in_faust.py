"""What `faust -A streams.app` can do besides Faust's own commands: all of `dabbawala`'s, our worker, tables, topics.

Importing this registers them.
"""

from faust.cli.base import cli

from streams.cli import table, topics, worker
from streams.cli.groups import NAMES, load

__all__ = ["table", "topics", "worker"]

for name in NAMES:
    cli.add_command(load(name), name)
