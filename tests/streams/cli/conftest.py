"""Fixtures: a fake worker with prepared answers, and the commands run against it."""

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
    """The answer to a request. A text body is sent as it is, any other as JSON."""

    status: int
    body: Any
    kind: str = "application/json"


class FakeWorker:
    """A worker that gives each path its answers in turn and repeats the last one.

    An answer that is a function is called with the request.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[Any]] = {}
        self.asked: list[Asked] = []

    def says(self, path: str, *answers: Any) -> None:
        """Set the answers of a path."""
        self.answers[path] = list(answers)

    def take(self, asked: Asked) -> Answer:
        """Record a request; return its answer."""
        self.asked.append(asked)
        if asked.path not in self.answers:
            return problem(404, f"there is no {asked.path} here")
        answers = self.answers[asked.path]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        made = answer(asked) if callable(answer) else answer
        return made if isinstance(made, Answer) else Answer(200, made)


def problem(status: int, detail: str, *errors: tuple[str, str]) -> Answer:
    """Return an error of the API."""
    listed = [{"pointer": pointer, "detail": why} for pointer, why in errors]
    body = {"type": "t", "title": "t", "status": status, "detail": detail} | ({"errors": listed} if listed else {})
    return Answer(status, body, "application/problem+json")


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWorker]:
    """Yield the worker of `DABBAWALA_URL`."""

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
            """Log nothing."""

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
    """The exit code and the output of a command."""

    status: int
    printed: str
    error: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command line."""

    def run(*arguments: str) -> Done:
        status = main(arguments)
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err)

    return run
