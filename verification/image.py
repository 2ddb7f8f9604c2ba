"""`python -m verification.image`: run the steps of the Dockerfile in an empty directory, without a container engine.

The directory stands for `/`. COPY and RUN do what they say, with this Python in place of the base image's. Steps that
would change this machine (users, the base image's packages) are skipped and named. The last stage keeps only what it
copies from the first. Then the programs of docker-compose.yaml are asked for their help.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
PLACES = re.compile(r"(?<![\w./-])/(venv|app|data|access)\b")
"""Paths of the image that the Dockerfile uses."""
OF_THE_MACHINE = ("useradd ", "pip uninstall --yes --root-user-action")
"""Commands that would change this machine."""
STEP_TIMEOUT_S = 900.0
PROGRAMS = (
    ("faust", "-A", "streams.app", "worker", "--help"),
    ("dabbawala", "--help"),
    ("python", "-m", "simulators.city", "--help"),
    ("python", "-m", "simulators.payment", "--help"),
    ("python", "-m", "simulators.pos", "--help"),
    ("python", "-m", "simulators.drivers", "--help"),
    ("python", "-m", "simulators.provider", "--help"),
)


class StepFailed(Exception):
    """A step of the Dockerfile failed; the message has its output."""


class Instruction(NamedTuple):
    """One instruction of a Dockerfile."""

    name: str
    arguments: str


def instructions(text: str) -> Iterator[Instruction]:
    """Yield the instructions of a Dockerfile, with continued lines joined."""
    lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        name, _, arguments = line.strip().partition(" ")
        yield Instruction(name.upper(), " ".join(arguments.split()))


class Image:
    """A directory that stands for the file system of the image."""

    def __init__(self, directory: Path) -> None:
        self._root = directory / "root"
        self._former = directory / "former"
        self._bin = directory / "bin"
        self._root.mkdir()
        self._bin.mkdir()
        (self._bin / "python").symlink_to(sys.executable)
        self._workdir = self._root
        self._environment = {"HOME": str(directory), "PATH": f"{self._bin}:/usr/bin:/bin"}
        self._environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}

    def build(self, text: str) -> None:
        """Run the instructions of a Dockerfile. Raises `StepFailed`."""
        for step in instructions(text):
            print(f"{step.name} {step.arguments}", flush=True)
            match step.name:
                case "FROM":
                    self._begin_stage()
                case "WORKDIR":
                    self._workdir = self._inside(step.arguments)
                    self._workdir.mkdir(parents=True, exist_ok=True)
                case "COPY":
                    self._copy(shlex.split(step.arguments))
                case "RUN":
                    self._run(step.arguments)
                case "ENV":
                    self._set(shlex.split(step.arguments))
                case "ARG" | "USER" | "VOLUME" | "CMD":
                    pass
                case _:
                    raise StepFailed(f"{step.name} is not known here: teach it to {Path(__file__).name}")

    def run(self, command: tuple[str, ...]) -> None:
        """Run a program of the image. Raises `StepFailed`."""
        print("run", *command, flush=True)
        found = shutil.which(command[0], path=self._environment["PATH"])
        if found is None or not found.startswith(str(self._root)):
            raise StepFailed(f"the image has no {command[0]}")
        self._execute([found, *command[1:]])

    def _begin_stage(self) -> None:
        """Move what there is aside: the next stage begins empty, and copies what it needs."""
        if any(self._root.iterdir()):
            self._root.rename(self._former)
            self._root.mkdir()
        self._workdir = self._root

    def _copy(self, arguments: list[str]) -> None:
        is_from_stage = arguments[0].startswith("--from=")
        *sources, target = arguments[1:] if is_from_stage else arguments
        for source in sources:
            origin = self._former / source.lstrip("/") if is_from_stage else REPOSITORY / source
            into = self._inside(target) if target.startswith("/") else self._workdir / target
            place = into / origin.name if target.endswith("/") or len(sources) > 1 else into
            place.parent.mkdir(parents=True, exist_ok=True)
            if origin.is_dir():
                shutil.copytree(origin, place, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(origin, place)

    def _run(self, line: str) -> None:
        commands = [part.strip() for part in line.split("&&")]
        for command in commands:
            if command.startswith(OF_THE_MACHINE):
                print(f"    skipped, because it would change this machine: {command}", flush=True)
            else:
                self._execute(["sh", "-ec", self._placed(re.sub(r"--(owner|group)=\S+", "", command))])

    def _set(self, pairs: list[str]) -> None:
        for pair in pairs:
            name, _, value = pair.partition("=")
            self._environment[name] = self._placed(value).replace("$PATH", self._environment["PATH"])

    def _execute(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            cwd=self._workdir,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=STEP_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise StepFailed(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}")

    def _inside(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    def _placed(self, text: str) -> str:
        """Return a text with the paths of the image below the directory."""
        return PLACES.sub(lambda found: str(self._root / found[1]), text)


def main() -> None:
    """Build the image in a temporary directory, and run its programs."""
    with tempfile.TemporaryDirectory(prefix="image-") as directory:
        image = Image(Path(directory))
        try:
            image.build((REPOSITORY / "Dockerfile").read_text())
            for program in PROGRAMS:
                image.run(program)
        except StepFailed as failed:
            sys.exit(str(failed))
    print("The image can be built, and its programs start.")


if __name__ == "__main__":
    main()
