"""Two workers of one installation, in one directory, and everybody outside."""

import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tests.flow.client import Client, order_id, partition_of
from tests.flow.conftest import INSTANT
from tests.flow.reading import PARTITIONS
from tests.stack import Stack, installed
from topics.restaurants import Restaurant

SHARED_WITHIN_S = 60.0


@contextmanager
def two_workers(kafka: str, directory: Path, kitchens: Sequence[Restaurant] = ()) -> Iterator[Stack]:
    """A stack of its own, whose parties take no time; `kitchens`: restaurants besides the city's."""
    with installed(kafka, f"{directory.name}-{uuid.uuid4().hex[:8]}", directory, 1.0, kitchens) as stack:
        stack.start_payment(*INSTANT)
        stack.start_pos(*INSTANT)
        stack.start_worker()
        stack.start_worker(2)
        stack.start_drivers(12, *INSTANT)
        yield stack


@asynccontextmanager
async def one_of_each(stack: Stack) -> AsyncIterator[tuple[Client, Client]]:
    """A client of each worker, when both have a share of the partitions."""
    async with Client(stack, 1) as first, Client(stack, 2) as second:
        await first.until(lambda: shared(first, second), "each has a share of the partitions", SHARED_WITHIN_S)
        yield first, second


async def shared(first: Client, second: Client) -> bool:
    """Whether each worker has some partitions open, and all of them are."""
    ready = [await client.http.get("/readyz") for client in (first, second)]
    if any(answer.status_code != 200 for answer in ready):
        return False
    shares = [answer.json()["partitions"] for answer in ready]
    return all(shares) and sorted(shares[0] + shares[1]) == list(range(PARTITIONS))


async def one_of(client: Client, unique: str, *, order: bool = True) -> str:
    """An external id whose order is this worker's; or a name that is, of a driver."""
    share = (await client.get("/readyz"))["partitions"]
    names = (f"{unique}-{n}" for n in range(1000))
    return next(name for name in names if partition_of(order_id(name) if order else name) in share)
