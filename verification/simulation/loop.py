"""An event loop with virtual time. All its choices follow from a seed.

Every callback belongs to an actor: a worker, a party outside, or the world. Its context decides which, so tasks that a
worker starts belong to that worker. Callbacks of one actor run in asyncio's order. The loop draws the next actor,
because separate processes run in no fixed order. A frozen actor runs its missed callbacks once it is thawed. A killed
actor never runs again, not even its ``finally`` blocks.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any

RESOLUTION_S = 1e-9
MAX_CLOSE_ATTEMPTS = 20
"""Attempts to close a coroutine that awaits something while it is closed."""


class Stuck(Exception):
    """The world has not ended, but no callback is left to run."""


class Endless(Exception):
    """The world has taken more steps than any sound world."""


class Actor:
    """A process of the simulated world."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: deque[asyncio.Handle] = deque()
        self.runs = True
        self.dead = False
        self.steps = 0
        self.before_step: Callable[[int], None] | None = None
        """Function to call before each step, with its number; it may freeze or kill the actor."""
        self.context = copy_context()
        self.context.run(_actor.set, self)


_actor: ContextVar[Actor] = ContextVar("actor")


def current_actor() -> Actor:
    """Return the actor whose code is running."""
    return _actor.get()


class VirtualLoop(asyncio.BaseEventLoop):
    """Event loop of a simulated world. The actor ``world`` owns the callbacks that no other actor started."""

    def __init__(self, chance: Random, most_steps: int) -> None:
        super().__init__()
        self.world = Actor("world")
        self.steps = 0
        self.crashes: list[str] = []
        """Exceptions of tasks and callbacks that nothing awaits."""
        self._now = 0.0
        self._chance = chance
        self._most_steps = most_steps
        self._runnable: list[Actor] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._note_crash)

    # -- for the world ------------------------------------------------------------------------------------------------

    def spawn(self, actor: Actor, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run a coroutine as a task of an actor. An exception that leaves it is a crash of the simulation."""
        task = self.create_task(coroutine, context=actor.context)
        task.add_done_callback(self._report_failure, context=self.world.context)
        return task

    def later(self, delay_s: float, actor: Actor, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """Call an actor's function after ``delay_s`` seconds."""
        return self.call_at(self._now + delay_s, callback, *args, context=actor.context)

    def freeze(self, actor: Actor) -> None:
        """Suspend an actor until it is thawed."""
        actor.runs = False
        if actor in self._runnable:
            self._runnable.remove(actor)

    def thaw(self, actor: Actor) -> None:
        """Resume an actor, with every callback that became due meanwhile."""
        if actor.dead or actor.runs:
            return
        actor.runs = True
        if actor.ready:
            self._runnable.append(actor)

    def kill(self, actor: Actor) -> None:
        """Stop an actor for good."""
        self.freeze(actor)
        actor.dead = True
        actor.ready.clear()

    def dismantle(self) -> None:
        """Close what is left, so that Python's garbage collector prints no warning about it."""
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
            elif not task.cancelled():
                task.exception()
        self._tasks.clear()
        self._scheduled.clear()  # type: ignore[attr-defined]
        self.close()

    # -- asyncio's side -----------------------------------------------------------------------------------------------

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._make_ready(handle)
        return handle

    def _make_ready(self, handle: asyncio.Handle) -> None:
        actor: Actor = handle._context.get(_actor, self.world)  # type: ignore[attr-defined]
        if actor.dead:
            return
        if actor.runs and not actor.ready:
            self._runnable.append(actor)
        actor.ready.append(handle)

    def _run_once(self) -> None:
        """Run callbacks until ``stop`` is called."""
        runnable, chance = self._runnable, self._chance
        while not self._stopping:  # type: ignore[attr-defined]
            if not runnable:
                self._advance_time()
                continue
            index = int(chance.random() * len(runnable)) if len(runnable) > 1 else 0
            actor = runnable[index]
            actor.steps += 1
            if actor.before_step is not None:
                actor.before_step(actor.steps)
                if not actor.runs:
                    continue
            handle = actor.ready.popleft()
            if not actor.ready:
                del runnable[index]
            if not handle.cancelled():
                handle._run()
            self.steps += 1
            if self.steps > self._most_steps:
                raise Endless(f"more than {self._most_steps} steps, {self._now:.0f} s of the world")

    def _advance_time(self) -> None:
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0].cancelled():
            heapq.heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]
        if not scheduled:
            raise Stuck("no callback is left to run")
        self._now = max(self._now, scheduled[0].when())
        while scheduled and scheduled[0].when() <= self._now + RESOLUTION_S:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False  # type: ignore[attr-defined]
            if not handle.cancelled():
                self._make_ready(handle)

    def _make_task(
        self, _: asyncio.AbstractEventLoop, coroutine: Any, context: Context | None = None
    ) -> "asyncio.Task[Any]":
        task = asyncio.Task(coroutine, loop=self, context=context)
        self._tasks.append(task)
        return task

    def _report_failure(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and (exc := task.exception()) is not None:
            self.crashes.append(f"{task.get_coro()!r} raised {exc!r}")

    def _note_crash(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context["message"].startswith("Exception in callback"):
            self.crashes.append(f"{context['message']}: {context.get('exception')!r}")

    def _asyncgen_firstiter_hook(self, _: Any) -> None:
        """Do nothing: asynchronous generators are not tracked."""

    def _asyncgen_finalizer_hook(self, _: Any) -> None:
        """Do nothing: the moment of garbage collection must not influence a world."""

    def _process_events(self, event_list: Any) -> None:
        """Do nothing: there are no sockets."""

    def _write_to_self(self) -> None:
        """Do nothing: there are no other threads."""


def _close(coroutine: Any) -> None:
    for _ in range(MAX_CLOSE_ATTEMPTS):
        try:
            coroutine.close()
        except (RuntimeError, asyncio.CancelledError):
            continue
        except BaseException:  # a coroutine that raises has ended
            return
        return
