"""Commands of `faust -A streams.app`: the worker, and looking into its tables."""

from streams.cli import leave, table, topics, worker

__all__ = ["leave", "table", "topics", "worker"]
