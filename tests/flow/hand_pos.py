"""Restaurants whose point of sale is played by the test: it answers as told and says nothing by itself."""

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
"""Degrees from one restaurant to the next: 5.5 km, so that no driver stands between two of them."""


class Asked(NamedTuple):
    """A request to cook."""

    at: datetime
    key: str
    body: dict[str, Any]


class HandPos:
    """Serves all of them: answers each restaurant's requests with what `answers` says, 200 accepted by default."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self.answers: dict[str, tuple[int, dict[str, str]]] = {}
        self.asked: list[Asked] = []

    def kitchens(self, count: int) -> list[Restaurant]:
        """Restaurants, each in a region of its own, that cook in no time."""
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
        """The requests for one order."""
        return [asked for asked in self.asked if asked.body["order"] == order]

    def take(self, path: str, key: str, body: dict[str, Any]) -> tuple[int, dict[str, str]]:
        """Note a request and answer it."""
        self.asked.append(Asked(datetime.now(UTC), key, body))
        return self.answers.get(path.split("/")[2], ACCEPTED)


@contextmanager
def played_by_hand() -> Iterator[HandPos]:
    """Serve within the block."""

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
            """Say nothing."""

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
