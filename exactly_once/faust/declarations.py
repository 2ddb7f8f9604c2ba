"""Faust's topics, tables and agents, as the engine declares them."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from faust.tables.table import Table
from faust.types import AgentT, AppT, StreamT
from faust.types.topics import TopicT

from exactly_once.task.interfaces import Record
from exactly_once.task.manager import Handler
from exactly_once.task.task import Task

Apply = Callable[[Task, int, Sequence[Record], Handler], Awaitable[None]]
BatchAgent = AgentT[Any]
"""Faust's agent of batches of records."""


def bytes_table(app: AppT, name: str, partitions: int, help: str) -> Table[bytes, bytes]:
    """Declare a table of bytes to bytes."""
    table = app.Table(name, key_type=bytes, value_type=bytes, partitions=partitions, help=help)
    return cast(Table[bytes, bytes], table)


def source_topic(app: AppT, name: str, partitions: int) -> TopicT:
    """Declare a topic of raw records without acks: a task commits its offsets, and Faust would keep a list of what is
    not acknowledged."""
    return app.topic(
        name,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        acks=False,
        partitions=partitions,
    )


def batch_agent(app: AppT, source: TopicT, handler: Handler, apply: Apply) -> BatchAgent:
    """Declare the agent of a source, under the handler's name, which applies each batch to its tasks."""

    async def consume(stream: StreamT[Any]) -> None:
        async for event in stream.events():
            for part in event.message.value.parts:
                await apply(part.task, part.follows, part.records, handler)

    consume.__module__, consume.__name__ = handler.__module__, handler.__name__
    consume.__qualname__, consume.__doc__ = handler.__qualname__, handler.__doc__
    agent: BatchAgent = app.agent(source)(consume)
    return agent
