"""`make`, and what it runs before there is anything: each thing that a fresh machine may lack has its sentence."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.embedded.test_slots import end, start_worker, told

ROOT = Path(__file__).parent.parent.parent
INSTALL = ROOT / "requirements" / "install.py"

RUN_AS_PYTHON_3_9 = f"""
import runpy, sys
sys.version_info, sys.argv = (3, 9, 2, "final", 0), ["install.py", "dev"]
runpy.run_path({str(INSTALL)!r}, run_name="__main__")
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """install.py, for an environment in `tmp_path`."""
    spec = importlib.util.spec_from_file_location("install", INSTALL)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", str(tmp_path / ".venv"))
    monkeypatch.setattr(module, "LOG", str(tmp_path / "install.log"))
    return module


def test_a_python_that_is_too_old_is_told_so_in_one_sentence() -> None:
    said = subprocess.run([sys.executable, "-c", RUN_AS_PYTHON_3_9], capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert re.fullmatch(
        r"Dabbawala needs Python 3\.11 or newer, and .* is 3\.9: install one and name it.*\n", said.stderr
    )


def test_without_any_python_make_says_what_to_do(tmp_path: Path) -> None:
    make_only = tmp_path / "bin"
    make_only.mkdir()
    for program in ("make", "sh"):
        found = subprocess.run(["which", program], capture_output=True, text=True, check=True).stdout.strip()
        (make_only / program).symlink_to(found)
    said = make(tmp_path, "kafka", PATH=str(make_only))
    assert "Dabbawala needs Python 3.11 or newer: install one, or name it" in said.stderr


def test_a_python_without_venv_is_told_of(install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without = tmp_path / "python"
    without.write_text("#!/bin/sh\necho 'ensurepip is not available'; exit 1\n")
    without.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(without))
    with pytest.raises(install.Failed, match="cannot make a virtual environment: install its venv module"):
        install.make_venv()


@pytest.mark.parametrize(
    ("said", "sentence"),
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
def test_what_keeps_packages_away_is_said_in_a_sentence(install: ModuleType, said: str, sentence: str) -> None:
    Path(install.LOG).write_text(f"Collecting\n{said}\n")
    assert re.search(sentence, install.why_not())


def test_the_settings_of_pip_are_handed_on_and_the_environment_comes_first(
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


def test_clean_ends_the_workers_of_its_directory_and_leaves_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    state = tmp_path / "state"
    worker = start_worker(state)
    try:
        assert told(worker)
        (state / "notes").write_text("somebody else's")
        make(tmp_path, "clean", DABBAWALA_DIR=str(state), PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path]))
        assert worker.wait(timeout=10) is not None
        assert [left.name for left in state.iterdir()] == ["notes"]
    finally:
        end([worker])


def make(directory: Path, target: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run our Makefile in another directory."""
    variables = {"HOME": str(directory), "PATH": os.environ["PATH"], **environment}
    command = ["make", "-f", str(ROOT / "Makefile"), target]
    (directory / "Makefile").symlink_to(ROOT / "Makefile")
    (directory / "requirements").symlink_to(ROOT / "requirements")
    return subprocess.run(command, cwd=directory, env=variables, capture_output=True, text=True, check=False)
