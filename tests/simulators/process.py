"""A simulator as a separate process."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from tests.simulators.waiting import until

ROOT = Path(__file__).parents[2]


class Simulator:
    """`python -m simulators.NAME ARGUMENTS` in a directory of the test, where a second start finds the ledger."""

    def __init__(self, name: str, directory: Path, *arguments: str) -> None:
        self.name = name
        self._directory = directory
        self._arguments = arguments
        self.ledger = directory / f"{name}.jsonl"
        self._output = directory / f"{name}.out"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = "0"
        self._starts = 0

    def start(self, *more: str) -> None:
        """Start the process, without waiting until it is ready."""
        serves = self.name in ("payment", "pos")
        arguments = [*self._arguments, *more, "--ledger", str(self.ledger), *(["--port", self._port] if serves else [])]
        self._starts += 1
        self._output = self._directory / f"{self.name}-{self._starts}.out"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"simulators.{self.name}", *arguments],
                cwd=self._directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=output,
            )

    async def serving(self, *more: str) -> str:
        """Start the process; return its address once it listens. A second start has the same address."""
        self.start(*more)
        await until(lambda: self.dead or "listening on" in self.output, f"{self.name} listens")
        found = re.search(r"listening on (http://\S+:(\d+))", self.output)
        assert found, f"{self.name} ended: {self.output}"
        self._port = found[2]
        return found[1]

    @property
    def output(self) -> str:
        """Output of the last start."""
        return self._output.read_text()

    @property
    def dead(self) -> bool:
        """True if the process has ended."""
        return self._process is None or self._process.poll() is not None

    def entries(self) -> list[dict[str, Any]]:
        """Return the lines of its ledger."""
        lines = self.ledger.read_bytes().split(b"\n")[:-1] if self.ledger.exists() else []
        return [msgspec.json.decode(line) for line in lines]

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def ended(self, within_s: float = 120.0) -> int:
        """Wait for its end; return the exit status."""
        await until(lambda: self.dead, f"{self.name} ends", within_s)
        assert self._process is not None
        return self._process.returncode

    async def terminate(self) -> int:
        """Send SIGTERM; return the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await self.ended()
