"""Commands of `faust -A streams.app` beside Faust's own: those of `dabbawala`, the worker, and tables."""

from faust.cli.base import cli

from streams.cli import send, table, worker
from streams.cli.registry import NAMES, load

__all__ = ["send", "table", "worker"]


def register() -> None:
    """Add every command of `dabbawala` to Faust's. (Faust finds `table` and `worker` by their base class.)"""
    for name in NAMES:
        cli.add_command(load(name), name)
