"""The earliest timers of a task, in memory; all the others stay in RocksDB.

A timer is a row of the table ``timers``: its key is when it is due (milliseconds since the epoch, 8 bytes, big endian)
and its id, so key order is time order. The head holds *exactly* the committed rows up to a bound and nothing beyond
it: a row committed below the bound is inserted, one above it stays on disk, and when the head runs low it is filled
from the bound on. So a burst of a hundred thousand timers costs as much memory as a hundred, and no scan ever walks
over the deleted keys before the bound.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

DUE_BYTES = 8


def timer_key(due_ms: int, timer_id: bytes) -> bytes:
    """Return the row's key. ``ValueError`` for a time before the epoch."""
    if due_ms < 0:
        raise ValueError(f"a timer cannot be due at {due_ms} ms: that is before 1970")
    return due_ms.to_bytes(DUE_BYTES, "big") + timer_id


def due_of(key: bytes) -> int:
    """Return the due time of this key's timer, in milliseconds since the epoch."""
    return int.from_bytes(key[:DUE_BYTES], "big")


class TimerHead:
    """The earliest timers. ``read(from_key)`` yields the keys of the committed timer rows from a key on, in order."""

    def __init__(self, read: Callable[[bytes], Iterator[bytes]], size: int) -> None:
        self._read = read
        self._size = size
        self._keys: list[bytes] = []
        self._bound: bytes | None = b""
        """The head holds every committed key up to here; None when it holds them all."""
        self._fill()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def due(self, now_ms: int) -> int:
        """Return how many of these timers are due."""
        return bisect_left(self._keys, (now_ms + 1).to_bytes(DUE_BYTES, "big"))

    def committed(self, rows: Mapping[bytes, bytes | None]) -> None:
        """Apply timer rows that were written to RocksDB (None: deleted)."""
        for key, payload in rows.items():
            if self._bound is not None and key > self._bound:
                continue
            place = bisect_left(self._keys, key)
            known = place < len(self._keys) and self._keys[place] == key
            if payload is None and known:
                del self._keys[place]
            elif payload is not None and not known:
                self._keys.insert(place, key)
                if len(self._keys) > 2 * self._size:
                    del self._keys[self._size :]
                    self._bound = self._keys[-1]
        if len(self._keys) <= self._size // 4 and self._bound is not None:
            self._fill()

    def _fill(self) -> None:
        assert self._bound is not None, "there is nothing beyond the head"
        bound = self._bound
        beyond = (key for key in self._read(bound) if key > bound)
        wanted = self._size - len(self._keys)
        found = list(islice(beyond, wanted))
        self._keys += found
        self._bound = self._keys[-1] if len(found) == wanted else None
