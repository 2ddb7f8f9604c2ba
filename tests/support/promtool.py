"""`promtool`, which comes with Prometheus (Debian: `apt-get install prometheus`)."""

import shutil
import subprocess
from pathlib import Path

import pytest

MISSING = "promtool is not installed: `apt-get install prometheus` installs it"


def run_promtool(*arguments: str, text: str | None = None, directory: Path | None = None) -> str:
    """Run it, and return its output. Fails the test with that output if promtool finds an error."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip(MISSING)
    command = [program, *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=directory, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
