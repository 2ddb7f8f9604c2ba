"""Two workers of one installation, in one directory, and all outside parties."""

import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tests.flow.client import Client, order_id, partition_of
from tests.flow.conftest import INSTANT
from tests.flow.reading import PARTITIONS
from tests.support.stack import Stack, installed
from topics.restaurants import Restaurant


@contextmanager
def two_workers(kafka: str, directory: Path, kitchens: Sequence[Restaurant] = ()) -> Iterator[Stack]:
    """Run a stack for one test file. Its parties take no time; `kitchens` are restaurants besides the city's."""
    with installed(kafka, f"{directory.name}-{uuid.uuid4().hex[:8]}", directory, 1.0, kitchens) as stack:
        stack.start_payment(*INSTANT)
        stack.start_pos(*INSTANT)
        stack.start_worker()
        stack.start_worker(2)
        stack.start_drivers(12, *INSTANT)
        yield stack


@asynccontextmanager
async def one_of_each(stack: Stack) -> AsyncIterator[tuple[Client, Client]]:
    """Wait until both workers have a share of the partitions; yield a client of each."""
    async with Client(stack, 1) as first, Client(stack, 2) as second:
        await first.until(lambda: shared(first, second), "each worker has a share of the partitions")
        yield first, second


async def shared(first: Client, second: Client) -> bool:
    """Return whether both workers have partitions open, and together all of them."""
    ready = [await client.http.get("/readyz") for client in (first, second)]
    if any(answer.status_code != 200 for answer in ready):
        return False
    shares = [answer.json()["partitions"] for answer in ready]
    return all(shares) and sorted(shares[0] + shares[1]) == list(range(PARTITIONS))


async def one_of(client: Client, unique: str, *, order: bool = True) -> str:
    """Return an external id whose order this worker owns, or with `order` false a driver's name that it owns."""
    share = (await client.get("/readyz"))["partitions"]
    names = (f"{unique}-{n}" for n in range(1000))
    return next(name for name in names if partition_of(order_id(name) if order else name) in share)
