"""Commands of `faust -A streams.app`: the worker, looking into its tables, topics, leaving the group."""

from faust.cli.base import cli

from streams.cli import leave, table, topics, worker

__all__ = ["leave", "table", "topics", "worker"]

cli.add_command(leave.leave)
cli.add_command(topics.topics)
