"""`make` on a fresh machine: a sentence explains each thing that may be missing."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.streams.local.test_worker_slots import end, printed, start_worker

ROOT = Path(__file__).parents[3]
INSTALL = ROOT / "requirements" / "install.py"

RUN_AS_PYTHON_3_9 = f"""
import runpy, sys
sys.version_info, sys.argv = (3, 9, 2, "final", 0), ["install.py", "dev"]
runpy.run_path({str(INSTALL)!r}, run_name="__main__")
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return install.py as a module, for an environment in `tmp_path`."""
    spec = importlib.util.spec_from_file_location("install", INSTALL)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", str(tmp_path / ".venv"))
    monkeypatch.setattr(module, "LOG", str(tmp_path / "install.log"))
    return module


def test_old_python_is_rejected_in_one_sentence() -> None:
    done = subprocess.run([sys.executable, "-c", RUN_AS_PYTHON_3_9], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(
        r"Dabbawala needs Python 3\.11 or newer, and .* is 3\.9: install one and name it.*\n", done.stderr
    )


def test_make_without_python_gives_the_remedy(tmp_path: Path) -> None:
    make_only = tmp_path / "bin"
    make_only.mkdir()
    for program in ("make", "sh"):
        found = subprocess.run(["which", program], capture_output=True, text=True, check=True).stdout.strip()
        (make_only / program).symlink_to(found)
    done = make(tmp_path, "kafka", PATH=str(make_only))
    assert "Dabbawala needs Python 3.11 or newer: install one, or name it" in done.stderr


def test_python_without_venv_is_explained(install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without = tmp_path / "python"
    without.write_text("#!/bin/sh\necho 'ensurepip is not available'; exit 1\n")
    without.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(without))
    with pytest.raises(install.Failed, match="cannot make a virtual environment: install its venv module"):
        install.make_venv()


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (
            "ERROR: No matching distribution found for aiohttp==3.14.5",
            r"^The Python packages could not be fetched: check the",
        ),
        ("error: [Errno 28] No space left on device", r"^The disk is full: "),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES",
            r"^The Python packages could not be installed: ERROR: THESE PACK",
        ),
    ],
)
def test_failed_installation_is_explained(install: ModuleType, output: str, sentence: str) -> None:
    Path(install.LOG).write_text(f"Collecting\n{output}\n")
    assert re.search(sentence, install.why_not())


def test_settings_of_pip_are_kept_and_the_environment_wins(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://mirror.example/simple\ncert = /etc/mirror.pem\n")
    monkeypatch.setattr(install, "PYTHON", sys.executable)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_CERT", "/etc/nearer.pem")
    settings = install.pip_settings()
    assert settings["index-url"] == "https://mirror.example/simple"
    assert settings["cert"] == "/etc/nearer.pem"


def test_help_lists_every_target(tmp_path: Path) -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    listed = re.findall(r"^  ([a-z-]+) +\S", make(tmp_path, "help").stdout, re.MULTILINE)
    assert sorted(listed) == sorted(phony[1].split())


def test_clean_stops_workers_and_keeps_foreign_files(tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    state = tmp_path / "state"
    worker = start_worker(state)
    try:
        assert printed(worker)
        (state / "notes").write_text("a foreign file")
        make(tmp_path, "clean", DABBAWALA_DIR=str(state), PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path]))
        assert worker.wait(timeout=120) is not None
        assert [path.name for path in state.iterdir()] == ["notes"]
    finally:
        end([worker])


def make(directory: Path, target: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run our Makefile in another directory."""
    variables = {"HOME": str(directory), "PATH": os.environ["PATH"], **environment}
    command = ["make", "-f", str(ROOT / "Makefile"), target]
    (directory / "Makefile").symlink_to(ROOT / "Makefile")
    (directory / "requirements").symlink_to(ROOT / "requirements")
    return subprocess.run(command, cwd=directory, env=variables, capture_output=True, text=True, check=False)
