"""Kafka's jars, downloaded from a Maven repository. A file gets its name only if it has the hash of `kafka.lock`.

`python -m streams.local.kafka.download` writes a new lock from `pom.xml`; that needs Maven (`make lock-kafka`).
"""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import httpx

from streams.local.errors import SetUpError

MAVEN_CENTRAL = "https://repo.maven.apache.org/maven2"
LOCK = Path(__file__).with_name("kafka.lock")
POM = Path(__file__).with_name("pom.xml")

MAX_CONNECTIONS = 8
JARS_PER_LINE = 9
"""Jars for each line of progress, which makes about five lines."""
MAX_JAR_BYTES = 32 << 20
"""Limit of a jar; the largest of kafka.lock has 10 MB. A mirror that sends without end must not fill the disk."""
MAX_ATTEMPTS = 3
"""Attempts for one jar. A broken connection is tried again, a wrong hash is not."""


@dataclass(frozen=True, order=True)
class Jar:
    """One artifact of a Maven repository, and the sha256 (hex) of its file."""

    group: str
    artifact: str
    version: str
    sha256: str

    @classmethod
    def parse(cls, line: str) -> "Jar":
        """Parse a line of `kafka.lock`."""
        coordinates, sha256 = line.split()
        group, artifact, version = coordinates.split(":")
        return cls(group, artifact, version, sha256)

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version} {self.sha256}"

    @property
    def name(self) -> str:
        """File name."""
        return f"{self.artifact}-{self.version}.jar"

    @property
    def path(self) -> str:
        """Path in a Maven repository, relative to its base URL."""
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.name}"


def locked_jars(lock: Path = LOCK) -> list[Jar]:
    """Return the jars of `kafka.lock`, which has a line `group:artifact:version sha256` for each."""
    return [Jar.parse(line) for line in lock.read_text().splitlines()]


def fetch(jars: Iterable[Jar], directory: Path, progress: Callable[[str], None]) -> list[Path]:
    """Download the missing jars into `directory`; return the paths of all, sorted: the class path.

    Complete files are kept, so an interrupted download continues. The repository is `DABBAWALA_MAVEN_URL`, by default
    Maven Central. Raises `SetUpError`.
    """
    wanted = sorted(jars, key=lambda jar: jar.name)
    directory.mkdir(parents=True, exist_ok=True)
    missing = [jar for jar in wanted if not _is_complete(directory / jar.name, jar.sha256)]
    if missing:
        _download(missing, directory, progress)
    return [directory / jar.name for jar in wanted]


def _is_complete(path: Path, sha256: str) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _download(jars: list[Jar], directory: Path, progress: Callable[[str], None]) -> None:
    base = os.environ.get("DABBAWALA_MAVEN_URL", MAVEN_CENTRAL).rstrip("/")
    done, size = 0, 0
    with _client(base) as client, ThreadPoolExecutor(MAX_CONNECTIONS) as pool:
        fetches = [pool.submit(_download_one, client, jar, directory) for jar in jars]
        try:
            for finished in as_completed(fetches):
                done, size = done + 1, size + finished.result()
                if done % JARS_PER_LINE and done < len(jars):
                    continue
                progress(f"Downloading Kafka: jar {done} of {len(jars)}, {size / 1e6:.0f} MB")
        except httpx.HTTPError as error:
            raise SetUpError(
                f"Kafka's jars cannot be downloaded from {base} ({_reason(error)}): check the network, or set "
                "DABBAWALA_MAVEN_URL to a mirror of Maven Central."
            ) from error
        except OSError as error:
            raise SetUpError(_disk_sentence(error, directory)) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _client(base: str) -> httpx.Client:
    """Return a client of a Maven repository, by the environment's proxies. Raises `SetUpError` if there can be none."""
    try:
        return httpx.Client(base_url=base, timeout=30, follow_redirects=True)
    except (ImportError, ValueError, httpx.InvalidURL) as error:  # in turn: a SOCKS proxy, an unknown scheme, no URL
        raise SetUpError(
            f"Kafka's jars cannot be downloaded from {base} ({error}): correct DABBAWALA_MAVEN_URL, or HTTP_PROXY, "
            "HTTPS_PROXY, ALL_PROXY and NO_PROXY."
        ) from None


def _download_one(client: httpx.Client, jar: Jar, directory: Path) -> int:
    """Download and verify a jar, and only then give the file its name. Return its size in bytes."""
    part = directory / f"{jar.name}.part"
    size, found = _get(client, jar.path, part)
    if found != jar.sha256:
        part.unlink()
        raise SetUpError(
            f"{jar.name} from {client.base_url} is not the file of kafka.lock (its sha256 is "
            f"{found[:12]}..., not {jar.sha256[:12]}...): set DABBAWALA_MAVEN_URL to a mirror that serves Maven "
            "Central's files unchanged."
        )
    part.rename(directory / jar.name)
    return size


def _get(client: httpx.Client, path: str, part: Path, attempts: int = MAX_ATTEMPTS) -> tuple[int, str]:
    """Write the file at a path to ``part``; return its size and SHA-256. Raises `SetUpError` if it is too large."""
    size, digest = 0, hashlib.sha256()
    try:
        with client.stream("GET", path, headers={"Accept-Encoding": "identity"}) as answer, part.open("wb") as file:
            answer.raise_for_status()
            for chunk in answer.iter_raw():
                size += len(chunk)
                if size > MAX_JAR_BYTES:
                    part.unlink()
                    raise SetUpError(
                        f"{client.base_url}{path} is no jar of Kafka, because it has more than {MAX_JAR_BYTES} bytes: "
                        "set DABBAWALA_MAVEN_URL to a mirror that serves Maven Central's files unchanged."
                    )
                digest.update(chunk)
                file.write(chunk)
    except httpx.TransportError:
        if attempts == 1:
            raise
        return _get(client, path, part, attempts - 1)
    return size, digest.hexdigest()


def _reason(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"status {error.response.status_code} for {error.request.url}"
    return str(error) or type(error).__name__


def _disk_sentence(error: OSError, directory: Path) -> str:
    if error.errno == errno.ENOSPC:
        return f"The disk is full: Kafka's jars need 45 MB in {directory}; free some space and start again."
    return f"Kafka's jars cannot be written to {directory}: {error.strerror}."


def resolve(pom: Path = POM) -> list[Jar]:
    """Resolve the jars that `pom` needs at run time with Maven, and hash them. Raises `SetUpError`."""
    maven = shutil.which("mvn")
    if maven is None:
        raise SetUpError("pom.xml can be resolved only with Maven: install it (`mvn`) and run `make lock-kafka` again.")
    with tempfile.TemporaryDirectory() as scratch:
        command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        layout = ["-Dmdep.useRepositoryLayout=true", f"-DoutputDirectory={scratch}"]
        if subprocess.run(command + layout, check=False).returncode:
            raise SetUpError("Maven could not resolve pom.xml: see its output above.")
        return sorted(_jar_at(path, Path(scratch)) for path in Path(scratch).rglob("*.jar"))


def _jar_at(path: Path, repository: Path) -> Jar:
    *group, artifact, version, _ = path.relative_to(repository).parts
    return Jar(".".join(group), artifact, version, hashlib.sha256(path.read_bytes()).hexdigest())


if __name__ == "__main__":
    try:
        LOCK.write_text("".join(f"{jar}\n" for jar in resolve()))
    except SetUpError as error:
        sys.exit(str(error))
