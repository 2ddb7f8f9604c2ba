"""The network between the workers, the brokers and the parties: delays, losses and cut workers."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, TypeVar

from aiokafka.errors import KafkaConnectionError, RequestTimedOutError

from verification.simulation.loop import Actor, VirtualLoop

T = TypeVar("T")
REQUEST_TIMEOUT_S = 40.0
"""Time that aiokafka waits for an answer."""


class Network:
    """A network with faults. ``fault_at`` returns the fault of a passage by the name of its place, or ""."""

    def __init__(self, loop: VirtualLoop, seed: str, fault_at: Callable[[str], str]) -> None:
        self._loop = loop
        self._seed = seed
        self._fault_at = fault_at
        self._chances: dict[str, Random] = {}
        self.cut: set[Actor] = set()
        """Workers whose connections are cut."""

    def chance(self, name: str) -> Random:
        """Return the random numbers of an actor, which do not depend on what other actors do."""
        if name not in self._chances:
            self._chances[name] = Random(f"{self._seed}/{name}")
        return self._chances[name]

    def delay_s(self, name: str) -> float:
        """Draw the delay of one way, in seconds."""
        chance = self.chance(name)
        return chance.uniform(0.0001, 0.002) if chance.random() < 0.95 else chance.uniform(0.002, 0.05)

    def reaches(self, actor: Actor) -> bool:
        """Return whether messages reach an actor."""
        return actor not in self.cut and not actor.dead

    async def ask(self, actor: Actor, kind: str, handle: Callable[[], T]) -> T:
        """Send a request to a broker and return its answer; raise ``KafkaError`` if one of them is lost."""
        fault = self._fault_at(kind) if actor not in self.cut else "lost"
        fate, _, argument = fault.partition(":")
        answered: asyncio.Future[T] = self._loop.create_future()
        hangs = fate.endswith("-silent")
        up_s = self.delay_s(actor.name)
        match fate.removesuffix("-silent"):
            case "lost":
                self._fail(answered, up_s, hangs)
            case "late":
                self._fail(answered, up_s, hangs)
                self._loop.later(float(argument), self._loop.world, self._arrive_late, handle)
            case "unanswered":
                self._loop.later(up_s, self._loop.world, self._arrive_late, handle)
                self._fail(answered, 2 * up_s, hangs)
            case _:
                self._loop.later(up_s, self._loop.world, self._arrive, actor, handle, answered)
        return await answered

    def _arrive(self, actor: Actor, handle: Callable[[], Any], answered: "asyncio.Future[Any]") -> None:
        if actor in self.cut:
            self._fail(answered, self.delay_s(actor.name), hangs=False)
            return
        try:
            result = handle()
        except KafkaConnectionError:
            self._fail(answered, self.delay_s(actor.name), hangs=False)
            return
        if isinstance(result, asyncio.Future):
            result.add_done_callback(
                lambda done: self._answer_later(actor, done.result(), answered), context=self._loop.world.context
            )
        else:
            self._answer_later(actor, result, answered)

    def _answer_later(self, actor: Actor, result: Any, answered: "asyncio.Future[Any]") -> None:
        self._loop.later(self.delay_s(actor.name), self._loop.world, self._answer, actor, result, answered)

    def _answer(self, actor: Actor, result: Any, answered: "asyncio.Future[Any]") -> None:
        if actor in self.cut:
            self._fail(answered, self.delay_s(actor.name), hangs=False)
        elif not answered.done():
            answered.set_result(result)

    @staticmethod
    def _arrive_late(handle: Callable[[], Any]) -> None:
        with suppress(KafkaConnectionError):
            handle()

    def _fail(self, answered: "asyncio.Future[Any]", after_s: float, hangs: bool) -> None:
        exc = RequestTimedOutError() if hangs else KafkaConnectionError("the connection is cut")
        delay_s = REQUEST_TIMEOUT_S if hangs else after_s
        self._loop.later(delay_s, self._loop.world, _set_exception, answered, exc)


def _set_exception(answered: "asyncio.Future[Any]", exc: Exception) -> None:
    if not answered.done():
        answered.set_exception(exc)
