"""What was used lately, kept at hand."""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

from streams.engine.changes import MISSING, Missing

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The ``size`` entries that were used last, or up to twice as many.

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
        self._young[key] = value
        self._age()

    def renew(self, changed: Mapping[K, V]) -> None:
        """These have another value now. Where nothing was read, nothing is remembered."""
        if self._young or self._old:
            self._young.update(changed)
            self._age()

    def forget(self, key: K) -> None:
        self._young.pop(key, None)
        self._old.pop(key, None)

    def _age(self) -> None:
        if len(self._young) >= self._size:
            self._old, self._young = self._young, {}
