"""Child processes, each with its log. They are ready when `start` returns, and end with their supervisor.

A child has a separate session, so Ctrl-C in the terminal reaches the supervisor alone, which stops its children in
order. If the supervisor is killed (`kill -9`), a further process kills the children (`orphan_reaper.py`).
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

from streams.demo import orphan_reaper
from streams.local.errors import SetUpError

GRACE_S = 10.0
"""Time from SIGTERM to SIGKILL. A worker commits and ends within 5 s."""

MAX_LOG_LINES = 10
"""Last lines of a child's log that an error shows."""

POLL_S = 0.02


class ChildDied(SetUpError):
    """A child ended unexpectedly, or was not ready in time. The message ends with the last lines of its log."""


@dataclass
class Child:
    """One child process. `restart` runs its command again, with the same environment and log."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ready: Callable[[], bool]
    """Check that returns True once the child works. It is polled; an exception counts as False."""
    ready_s: float
    """Limit for the child to become ready."""
    _reaper: "_OrphanReaper" = field(repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """Process id of the child, or of its last run."""
        assert self._process, f"{self.name} has not been started"
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while the child runs."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start the child, without waiting until it is ready."""
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
        self._reaper.watch(self.pid)

    def wait_until_ready(self) -> None:
        """Wait until the child is ready. Raises `ChildDied` if it ends, or is not ready within `ready_s` seconds."""
        deadline = time.monotonic() + self.ready_s
        while not self._is_ready():
            self.check()
            if time.monotonic() > deadline:
                raise ChildDied(f"{self.name} was not ready within {self.ready_s:.0f} s. {self._last_lines()}")
            time.sleep(POLL_S)

    def check(self) -> None:
        """Raise `ChildDied` unless the child runs."""
        if self.status is not None:
            raise ChildDied(f"{self.name} ended with status {self.status}. {self._last_lines()}")

    def restart(self) -> None:
        """Kill the child if it runs, start it, and wait until it is ready."""
        self.kill()
        self.start()
        self.wait_until_ready()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the child and its process group, if it runs; for example SIGSTOP or SIGCONT."""
        if self._process and self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill the child with SIGKILL, as a crash would, and wait for its end."""
        self._end(signal.SIGKILL)

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Send SIGTERM, and SIGKILL after `grace_s` seconds; wait for its end."""
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
        self._reaper.forget(self.pid)

    def _is_ready(self) -> bool:
        try:
            return self.ready()
        except Exception:
            return False

    def _last_lines(self) -> str:
        last = self.log.read_text(errors="replace").splitlines()[-MAX_LOG_LINES:]
        return f"Its log is {self.log}; the last lines are:\n" + "\n".join(f"  {line}" for line in last)


class Supervisor:
    """Owner of child processes. The end of its `with` block stops them, the last one started first.

    SIGTERM and SIGHUP also end the block, with SystemExit; SIGINT ends it with KeyboardInterrupt.
    """

    def __init__(self, logs: Path) -> None:
        """Write the output of each child to `NAME.log` in the directory `logs`."""
        self._logs = logs
        self._reaper = _OrphanReaper()
        self._signals: dict[signal.Signals, object] = {}
        self.children: list[Child] = []

    def __enter__(self) -> Self:
        self._reaper.start()
        for number in (signal.SIGTERM, signal.SIGHUP):
            with contextlib.suppress(ValueError):  # only the main thread can set handlers
                self._signals[number] = signal.signal(number, _exit)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _ignore_interrupts():
            self.stop()
            self._reaper.stop()
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
        """Start a child and wait until it is ready.

        `environment` is added to that of this process. With `wait=False` several children start at the same time; call
        `wait_until_ready` afterwards. Raises `ChildDied` if the child ends, or is not ready within `ready_s` seconds.
        """
        child = Child(
            name,
            command,
            {**os.environ, **(environment or {})},
            self._logs / f"{name}.log",
            ready,
            ready_s,
            self._reaper,
        )
        self.children.append(child)
        child.start()
        if wait:
            child.wait_until_ready()
        return child

    def adopt(self, pid: int) -> None:
        """Kill another process, too, if this one is killed. `stop` does not end it, because Kafka is stopped later."""
        self._reaper.watch(pid)

    def check(self) -> None:
        """Raise `ChildDied` for the first child that has ended."""
        for child in self.children:
            child.check()

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Stop all children, the last one started first."""
        for child in reversed(self.children):
            child.stop(grace_s)
        self.children.clear()


class _OrphanReaper:
    """This process's end of the pipe to the orphan reaper."""

    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-I", "-S", orphan_reaper.__file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def watch(self, pid: int) -> None:
        self._write(f"+{pid}\n")

    def forget(self, pid: int) -> None:
        self._write(f"-{pid}\n")

    def stop(self) -> None:
        """Stop the reaper without killing anything: adopted processes continue."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _write(self, line: str) -> None:
        if self._process and self._process.stdin:
            os.write(self._process.stdin.fileno(), line.encode())


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C, so that a second one leaves no children behind. Each is killed after its grace period anyway."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # Ctrl-C only reaches the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
