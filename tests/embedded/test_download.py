"""Kafka's jars: only the locked bytes get their names, and each thing that can go wrong has its sentence."""

import errno
import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from streams.embedded import download
from streams.embedded.download import Jar, fetch, locked_jars
from streams.embedded.errors import SetUpError


def ignore(line: str) -> None:
    """For who wants no progress."""


class Repository:
    """A Maven repository on this machine: `files` by path. It notes what is asked for, and cuts `cuts` answers."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cuts = 0
        repository = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                repository.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/maven2"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.removeprefix("/maven2/")
        self.asked.append(path)
        content = self.files.get(path)
        request.send_response(200 if content is not None else 404)
        request.send_header("Content-Length", str(len(content or b"")))
        request.end_headers()
        if self.cuts:
            self.cuts -= 1
            return
        request.wfile.write(content or b"")

    def hold(self, name: str) -> Jar:
        """Serve a jar and return what a lock would say of it."""
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


def test_jars_are_fetched_once_and_make_a_sorted_class_path(repository: Repository, tmp_path: Path) -> None:
    told: list[str] = []
    jars = [repository.hold(name) for name in ("beta", "alpha")]
    assert fetch(jars, tmp_path, told.append) == [tmp_path / "alpha-1.0.jar", tmp_path / "beta-1.0.jar"]
    assert (tmp_path / "alpha-1.0.jar").read_bytes() == b"the bytes of alpha"
    assert told[-1].startswith("Fetching Kafka: 2 of 2 jars")
    fetch(jars, tmp_path, told.append)
    assert len(repository.asked) == 2


def test_a_jar_whose_bytes_have_changed_on_the_disk_is_fetched_anew(repository: Repository, tmp_path: Path) -> None:
    jar = repository.hold("alpha")
    (tmp_path / jar.name).write_bytes(b"the bytes of alpXa")
    fetch([jar], tmp_path, ignore)
    assert (tmp_path / jar.name).read_bytes() == b"the bytes of alpha"


def test_an_interrupted_download_goes_on_where_it_stopped(repository: Repository, tmp_path: Path) -> None:
    jars = [repository.hold(name) for name in ("alpha", "beta")]
    missing = repository.files.pop(jars[1].path)
    with pytest.raises(SetUpError, match="status 404"):
        fetch(jars, tmp_path, ignore)
    repository.files[jars[1].path] = missing
    repository.asked.clear()
    fetch(jars, tmp_path, ignore)
    assert repository.asked == [jars[1].path]


def test_a_connection_that_is_cut_is_tried_again(repository: Repository, tmp_path: Path) -> None:
    jar, repository.cuts = repository.hold("alpha"), 1
    fetch([jar], tmp_path, ignore)
    assert len(repository.asked) == 2


def test_bytes_that_the_lock_does_not_name_are_refused_and_never_get_the_jars_name(
    repository: Repository, tmp_path: Path
) -> None:
    jar = repository.hold("alpha")
    repository.files[jar.path] = b"something else"
    with pytest.raises(SetUpError, match=r"alpha-1\.0\.jar .* is not the file that kafka\.lock names"):
        fetch([jar], tmp_path, ignore)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DABBAWALA_MAVEN_URL", "http://127.0.0.1:9/maven2")
    with pytest.raises(
        SetUpError, match=r"cannot be fetched from http://127\.0\.0\.1:9/maven2 .*: check the network, or set"
    ):
        fetch([Jar("org.example", "alpha", "1.0", "00")], tmp_path, ignore)


def test_a_full_disk_is_called_that(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    jar = repository.hold("alpha")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SetUpError, match=re.escape(f"The disk is full: Kafka's jars need 45 MB in {tmp_path}; free")):
        fetch([jar], tmp_path, ignore)


def test_the_lock_names_every_jar_of_kafka_with_its_hash() -> None:
    jars = locked_jars()
    assert {"kafka_2.13", "kafka-clients", "log4j-slf4j-impl"} <= {jar.artifact for jar in jars}
    assert all(re.fullmatch("[0-9a-f]{64}", jar.sha256) for jar in jars)
    assert len({jar.name for jar in jars}) == len(jars)
    assert [str(jar) for jar in jars] == download.LOCK.read_text().splitlines()


def test_a_new_lock_needs_maven_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetUpError, match="Only Maven can resolve"):
        download.resolve()
