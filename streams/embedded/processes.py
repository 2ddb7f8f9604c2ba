"""Child processes: started into their own logs, waited for until they work, ended with whoever started them.

A child gets a session of its own, so that Ctrl-C in the terminal reaches the supervisor alone, which then ends its
children in order. Should the supervisor itself be killed (`kill -9`), a guard process does it (`guard.py`).
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from streams.embedded import guard
from streams.embedded.errors import SetUpError

GRACE_S = 10.0
"""From SIGTERM to SIGKILL: a worker commits what is under way, in 5 s at most."""

LAST_LINES = 10
"""Of a child's log, shown when it has died."""

POLL_S = 0.02


class ChildDied(SetUpError):
    """A child ended that should not have, or never came to work; the message ends with the last lines of its log."""


@dataclass
class Child:
    """One child process. `command` is started anew by every `restart`, with the same environment and log."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ready: Callable[[], bool]
    """Whether it works: asked again and again until it says so. What it raises counts as no."""
    ready_s: float
    _guard: "_Guard" = field(repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        assert self._process, f"{self.name} has not been started"
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status (minus the signal's number where one ended it); None while it runs."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start it, without waiting for anything."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._guard.watch(self.pid)

    def wait_until_ready(self) -> None:
        """Raises `ChildDied` if it ends first, or is not ready `ready_s` seconds from now."""
        deadline = time.monotonic() + self.ready_s
        while not self._is_ready():
            self.check()
            if time.monotonic() > deadline:
                raise ChildDied(f"{self.name} was not ready within {self.ready_s:.0f} s; {self._last_lines()}")
            time.sleep(POLL_S)

    def check(self) -> None:
        """Raises `ChildDied` unless it runs."""
        if self.status is not None:
            raise ChildDied(f"{self.name} ended with status {self.status}; {self._last_lines()}")

    def restart(self) -> None:
        """Start it again, ended or not, and wait until it is ready."""
        self.kill()
        self.start()
        self.wait_until_ready()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the child and all that it started, such as SIGSTOP and SIGCONT; nothing if it has ended."""
        if self._process and self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """End it as a crash would (SIGKILL), and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Ask it to end (SIGTERM), insist after `grace_s`, and wait until it is gone."""
        self._end(signal.SIGTERM, grace_s)

    def _end(self, number: signal.Signals, grace_s: float = GRACE_S) -> None:
        if self._process is None:
            return
        self.send(number)
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self._process.wait(grace_s)
        self._guard.forget(self.pid)

    def _is_ready(self) -> bool:
        try:
            return self.ready()
        except Exception:
            return False

    def _last_lines(self) -> str:
        last = self.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return f"{self.log} has it all, and its last lines are:\n" + "\n".join(f"  {line}" for line in last)


class Supervisor:
    """Starts children and, at the end of its `with` block, ends those that still run, the last one started first.

    SIGTERM and SIGHUP end the block too, as SystemExit (SIGINT already does, as KeyboardInterrupt).
    """

    def __init__(self, logs: Path) -> None:
        """`logs`: the directory where each child's output goes, to `NAME.log`."""
        self._logs = logs
        self._guard = _Guard()
        self._signals: dict[signal.Signals, object] = {}
        self.children: list[Child] = []

    def __enter__(self) -> Self:
        self._guard.start()
        for number in (signal.SIGTERM, signal.SIGHUP):
            with contextlib.suppress(ValueError):  # not in the main thread, which alone can
                self._signals[number] = signal.signal(number, _exit)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _undisturbed():
            self.stop()
            self._guard.stop()
        for number, before in self._signals.items():
            signal.signal(number, before)  # type: ignore[arg-type]

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        ready: Callable[[], bool] = lambda: True,
        ready_s: float = 60.0,
        wait: bool = True,
    ) -> Child:
        """Start a child and wait until it is ready. Raises `ChildDied` if it ends first or takes longer than `ready_s`.

        `environment` comes on top of our own. With `wait=False` several start at once; call `wait_until_ready` then.
        """
        child = Child(
            name,
            command,
            {**os.environ, **(environment or {})},
            self._logs / f"{name}.log",
            ready,
            ready_s,
            self._guard,
        )
        self.children.append(child)
        child.start()
        if wait:
            child.wait_until_ready()
        return child

    def adopt(self, pid: int) -> None:
        """Have a process that was started elsewhere ended too, should we be killed: the broker, which `stop` leaves."""
        self._guard.watch(pid)

    def check(self) -> None:
        """Raises `ChildDied` for the first child that has ended."""
        for child in self.children:
            child.check()

    def stop(self, grace_s: float = GRACE_S) -> None:
        """End all children, the last one started first."""
        for child in reversed(self.children):
            child.stop(grace_s)
        self.children.clear()


class _Guard:
    """Our end of the guard's pipe."""

    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-I", "-S", guard.__file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def watch(self, pid: int) -> None:
        self._tell(f"+{pid}\n")

    def forget(self, pid: int) -> None:
        self._tell(f"-{pid}\n")

    def stop(self) -> None:
        """Without ending anybody: what has been adopted goes on."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _tell(self, line: str) -> None:
        if self._process and self._process.stdin:
            os.write(self._process.stdin.fileno(), line.encode())


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let a second Ctrl-C not leave half of the children behind; each of them is killed after its grace anyway."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not in the main thread, to which Ctrl-C comes
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
