"""The download of Kafka's jars: it verifies hashes, continues after interruptions and explains its failures."""

import errno
import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from streams.local.errors import SetUpError
from streams.local.kafka import download
from streams.local.kafka.download import Jar, fetch, locked_jars


def ignore(line: str) -> None:
    """Ignore the progress."""


class Repository:
    """A Maven repository that serves `files`, records the requested paths, and breaks off the first `cuts` answers."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requested: list[str] = []
        self.encodings: list[str] = []
        self.cuts = 0
        repository = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                repository.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/maven2"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.removeprefix("/maven2/")
        self.requested.append(path)
        self.encodings.append(request.headers["Accept-Encoding"])
        content = self.files.get(path)
        request.send_response(200 if content is not None else 404)
        request.send_header("Content-Length", str(len(content or b"")))
        request.end_headers()
        if self.cuts:
            self.cuts -= 1
            return
        request.wfile.write(content or b"")

    def add(self, name: str) -> Jar:
        """Serve a jar; return its entry of a lock."""
        content = f"the bytes of {name}".encode()
        jar = Jar("org.example", name, "1.0", hashlib.sha256(content).hexdigest())
        self.files[f"org/example/{name}/1.0/{name}-1.0.jar"] = content
        return jar


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    served = Repository()
    thread = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("DABBAWALA_MAVEN_URL", served.url)
    yield served
    served.server.shutdown()
    thread.join()
    served.server.server_close()


def test_jars_are_downloaded_once_and_sorted(repository: Repository, tmp_path: Path) -> None:
    lines: list[str] = []
    jars = [repository.add(name) for name in ("beta", "alpha")]
    assert fetch(jars, tmp_path, lines.append) == [tmp_path / "alpha-1.0.jar", tmp_path / "beta-1.0.jar"]
    assert (tmp_path / "alpha-1.0.jar").read_bytes() == b"the bytes of alpha"
    assert lines[-1].startswith("Downloading Kafka: jar 2 of 2, ")
    fetch(jars, tmp_path, lines.append)
    assert len(repository.requested) == 2


def test_damaged_jar_is_downloaded_again(repository: Repository, tmp_path: Path) -> None:
    jar = repository.add("alpha")
    (tmp_path / jar.name).write_bytes(b"the bytes of alpXa")
    fetch([jar], tmp_path, ignore)
    assert (tmp_path / jar.name).read_bytes() == b"the bytes of alpha"


def test_interrupted_download_continues(repository: Repository, tmp_path: Path) -> None:
    jars = [repository.add(name) for name in ("alpha", "beta")]
    missing = repository.files.pop(jars[1].path)
    with pytest.raises(SetUpError, match="status 404"):
        fetch(jars, tmp_path, ignore)
    repository.files[jars[1].path] = missing
    repository.requested.clear()
    fetch(jars, tmp_path, ignore)
    assert repository.requested == [jars[1].path]


def test_broken_connection_is_tried_again(repository: Repository, tmp_path: Path) -> None:
    jar, repository.cuts = repository.add("alpha"), 1
    fetch([jar], tmp_path, ignore)
    assert len(repository.requested) == 2


def test_file_with_another_hash_is_rejected(repository: Repository, tmp_path: Path) -> None:
    jar = repository.add("alpha")
    repository.files[jar.path] = b"something else"
    with pytest.raises(SetUpError, match=r"alpha-1\.0\.jar .* is not the file of kafka\.lock"):
        fetch([jar], tmp_path, ignore)
    assert list(tmp_path.iterdir()) == []


def test_unreachable_repository_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DABBAWALA_MAVEN_URL", "http://127.0.0.1:9/maven2")
    with pytest.raises(
        SetUpError, match=r"cannot be downloaded from http://127\.0\.0\.1:9/maven2 .*: check the network, or set"
    ):
        fetch([Jar("org.example", "alpha", "1.0", "00")], tmp_path, ignore)


def test_full_disk_is_explained(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    jar = repository.add("alpha")
    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(SetUpError, match=re.escape(f"The disk is full: Kafka's jars need 45 MB in {tmp_path}; free")):
        fetch([jar], tmp_path, ignore)


def test_lock_has_a_hash_for_every_jar() -> None:
    jars = locked_jars()
    assert {"kafka_2.13", "kafka-clients", "log4j-slf4j-impl"} <= {jar.artifact for jar in jars}
    assert all(re.fullmatch("[0-9a-f]{64}", jar.sha256) for jar in jars)
    assert len({jar.name for jar in jars}) == len(jars)
    assert [str(jar) for jar in jars] == download.LOCK.read_text().splitlines()


def test_new_lock_needs_maven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetUpError, match="only with Maven"):
        download.resolve()


def test_a_file_without_end_is_cut_off(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_JAR_BYTES", 1000)
    jar = repository.add("alpha")
    repository.files[jar.path] = bytes(100_000)
    with pytest.raises(SetUpError, match="is no jar of Kafka, because it has more than 1000 bytes"):
        fetch([jar], tmp_path, ignore)
    assert list(tmp_path.iterdir()) == []


def test_an_answer_is_not_unpacked(repository: Repository, tmp_path: Path) -> None:
    jar = repository.add("alpha")
    fetch([jar], tmp_path, ignore)
    assert repository.encodings == ["identity"]
