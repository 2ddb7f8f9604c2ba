"""Digest of a partition's state, to compare two copies of it.

The digest is BLAKE2b with 16 bytes, in hex, over the rows of all tables: the tables in the order of their names, the
rows in that of their keys; of each row the table's name in UTF-8, the key and the value, each after its length (4
bytes, big endian). The positions are rows too: two copies with the same digest have applied the same records. What the
store keeps for itself is no row.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

PAGE = 500
"""Rows hashed without a pause: a few milliseconds."""


class Rows(Protocol):
    """All rows at one moment, to be read once."""

    def rows(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows that are not read yet, in key order."""
        ...


async def digest_of(rows: Rows, tables: Iterable[str]) -> str:
    """Return the digest in hex. Other asyncio tasks may run after every page."""
    found = hashlib.blake2b(digest_size=16)
    for table in sorted(tables):
        name = _sized(table.encode())
        while page := list(islice(rows.rows(table), PAGE)):
            found.update(b"".join([part for key, value in page for part in (name, _sized(key), _sized(value))]))
            await asyncio.sleep(0)
    return found.hexdigest()


def _sized(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part
