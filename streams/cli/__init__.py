"""Commands of `faust -A streams.app`: the worker, and looking into its tables."""

from streams.cli import table, topics, worker

__all__ = ["table", "topics", "worker"]
