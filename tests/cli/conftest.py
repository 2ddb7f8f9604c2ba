"""A worker that answers as the test says, and the commands run against it."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from streams.cli.__main__ import main


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """What comes back: text is sent as it is, anything else as JSON."""

    status: int
    body: Any
    kind: str = "application/json"


class FakeWorker:
    """Gives each path its answers in turn, the last one again and again; a function is called with the request."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Any]] = {}
        self.asked: list[Asked] = []

    def says(self, path: str, *answers: Any) -> None:
        """Answers of a path."""
        self.answers[path] = list(answers)

    def take(self, asked: Asked) -> Answer:
        """Note a request and answer it."""
        self.asked.append(asked)
        if asked.path not in self.answers:
            return problem(404, f"there is no {asked.path} here")
        left = self.answers[asked.path]
        answer = left.pop(0) if len(left) > 1 else left[0]
        found = answer(asked) if callable(answer) else answer
        return found if isinstance(found, Answer) else Answer(200, found)


def problem(status: int, detail: str, *errors: tuple[str, str]) -> Answer:
    """As the API says what is wrong."""
    listed = [{"pointer": pointer, "detail": why} for pointer, why in errors]
    body = {"type": "t", "title": "t", "status": status, "detail": detail} | ({"errors": listed} if listed else {})
    return Answer(status, body, "application/problem+json")


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWorker]:
    """Which `DABBAWALA_URL` names."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = dict(parse_qsl(address.query, keep_blank_values=True))
            answer = fake.take(Asked(self.command, unquote(address.path), query, headers, body))
            content = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(content.encode())))
            self.end_headers()
            self.wfile.write(content.encode())

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    fake = FakeWorker()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    monkeypatch.setenv("DABBAWALA_URL", f"http://127.0.0.1:{server.server_port}")
    try:
        yield fake
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


class Done(NamedTuple):
    """How a command ended."""

    status: int
    printed: str
    error: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line."""

    def run(*arguments: str) -> Done:
        status = main(arguments)
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err)

    return run
