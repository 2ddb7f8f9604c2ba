"""A cache of the entries used last."""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

from exactly_once.task.transaction import UNSET, Unset

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TwoGenerationCache(Generic[K, V]):
    """The ``size`` entries used last, or up to twice as many.

    An approximate LRU cache of two generations: a full young generation replaces the old one, which is discarded.
    """

    __slots__ = ("_old", "_size", "_young")

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | Unset:
        found = self._young.get(key, UNSET)
        if found is UNSET and (found := self._old.get(key, UNSET)) is not UNSET:
            self.put(key, found)
        return found

    def put(self, key: K, value: V) -> None:
        self._young[key] = value
        self._age()

    def update_if_warm(self, changed: Mapping[K, V]) -> None:
        """Store these new values, unless the cache is empty: a table that is never read is not cached."""
        if self._young or self._old:
            self._young.update(changed)
            self._age()

    def forget(self, key: K) -> None:
        self._young.pop(key, None)
        self._old.pop(key, None)

    def _age(self) -> None:
        if len(self._young) >= self._size:
            self._old, self._young = self._young, {}
