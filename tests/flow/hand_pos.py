"""Restaurants whose point of sale the test plays: it answers as the test sets it, and sends no callbacks."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import msgspec

from topics.places import Position
from topics.restaurants import Restaurant

ACCEPTED: tuple[int, dict[str, str]] = (200, {"status": "accepted"})
RECEIVED: tuple[int, dict[str, str]] = (202, {"status": "received"})
NORTHWARD = 0.05
"""Degrees of latitude from one restaurant to the next: 5.5 km, so that no driver is between two of them."""


class Asked(NamedTuple):
    """A request to prepare an order."""

    at: datetime
    key: str
    body: dict[str, Any]


class HandPos:
    """The server of all these restaurants. It answers with `answers[restaurant]`, by default 200 and accepted."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self.answers: dict[str, tuple[int, dict[str, str]]] = {}
        self.asked: list[Asked] = []

    def kitchens(self, count: int) -> list[Restaurant]:
        """Return restaurants that take no time to cook, each in a different region."""
        return [
            Restaurant(
                restaurant=f"hand-{number}",
                name=f"Kitchen {number}",
                region=f"region-{number}",
                position=Position(10.0 + number * NORTHWARD, 72.0),
                pos_url=f"{self._url}/restaurants/hand-{number}",
                preparation_s=0,
            )
            for number in range(count)
        ]

    def asked_for(self, order: str) -> list[Asked]:
        """Return the requests for one order."""
        return [asked for asked in self.asked if asked.body["order"] == order]

    def take(self, path: str, key: str, body: dict[str, Any]) -> tuple[int, dict[str, str]]:
        """Record a request and return its answer."""
        self.asked.append(Asked(datetime.now(UTC), key, body))
        return self.answers.get(path.split("/")[2], ACCEPTED)


@contextmanager
def played_by_hand() -> Iterator[HandPos]:
    """Serve all requests within the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = pos.take(self.path, self.headers["Idempotency-Key"], body)
            content = msgspec.json.encode(answer)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pos = HandPos(server.server_port)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    try:
        yield pos
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
