"""The network between a worker and everybody else, and what is known of a worker's place in it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, TypeVar

from aiokafka.errors import KafkaConnectionError, RequestTimedOutError

from tests.simulation.loop import Actor, VirtualLoop

T = TypeVar("T")
SILENCE_S = 40.0
"""What aiokafka waits for an answer."""


class Network:
    """``strikes`` tells which fault there is at a passage, by the name of the passage; empty for none."""

    def __init__(self, loop: VirtualLoop, seed: str, strikes: Callable[[str], str]) -> None:
        self._loop, self._seed, self._strikes = loop, seed, strikes
        self._chances: dict[str, Random] = {}
        self.cut: set[Actor] = set()

    def chance(self, whose: str) -> Random:
        """What is drawn for one actor does not depend on what others do."""
        if whose not in self._chances:
            self._chances[whose] = Random(f"{self._seed}/{whose}")
        return self._chances[whose]

    def delay_s(self, whose: str) -> float:
        """One way."""
        chance = self.chance(whose)
        return chance.uniform(0.0001, 0.002) if chance.random() < 0.95 else chance.uniform(0.002, 0.05)

    def reaches(self, actor: Actor) -> bool:
        """Whether anything gets to it and from it."""
        return actor not in self.cut and not actor.dead

    async def ask(self, actor: Actor, kind: str, handle: Callable[[], T]) -> T:
        """A request to a broker, and its answer. ``KafkaError`` where one of them is lost."""
        fault = self._strikes(kind) if actor not in self.cut else "lost"
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
        delay_s = SILENCE_S if hangs else after_s
        self._loop.later(delay_s, self._loop.world, _refuse, answered, exc)


def _refuse(answered: "asyncio.Future[Any]", exc: Exception) -> None:
    if not answered.done():
        answered.set_exception(exc)
