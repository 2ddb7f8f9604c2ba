"""What was used lately, kept at hand."""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

from streams.engine.changes import MISSING, Missing

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Between ``size`` and twice as many entries that were used last.

    An LRU cache in two generations: when the young one is full it takes the place of the old one, which is forgotten.
    """

    __slots__ = ("_old", "_size", "_young")

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | Missing:
        found = self._young.get(key, MISSING)
        if found is MISSING and (found := self._old.get(key, MISSING)) is not MISSING:
            self.put(key, found)
        return found

    def put(self, key: K, value: V) -> None:
        if len(self._young) >= self._size:
            self._old, self._young = self._young, {}
        self._young[key] = value

    def renew(self, changed: Mapping[K, V]) -> None:
        """Those of these that are here have another value now."""
        for generation in (self._young, self._old):
            for key in generation.keys() & changed.keys():
                generation[key] = changed[key]
