"""Rows for the query engine, over the HTTP API of one worker, which answers for all."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from streams.cli.client import UNREACHABLE, content_of, error_of, open_client, unreachable, worker_url
from streams.cli.errors import CommandError
from streams.sql.engine import Unavailable
from streams.sql.interfaces import SqlError

TIMEOUT = httpx.Timeout(10.0, read=45.0)
"""A worker may start its reader first, and wait for a turn to read a table."""
LATER = (httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.TOO_MANY_REQUESTS)
CONNECTION_FAILED = "08006"


class HttpRows:
    """A `RowSource`. One object serves one session."""

    def __init__(self, reveal: bool = False, reason: str | None = None) -> None:
        """``reveal`` asks for personal data, for this ``reason``."""
        self._query = {"reveal": "true", "reason": reason or ""} if reveal else {}
        self._client: httpx.Client | None = None

    def lines(
        self, table: str, fields: Sequence[str], *, key: str | None, partitions: Sequence[int] | None, limit: int | None
    ) -> Iterator[bytes]:
        """Yield the lines of rows of a table. Raises `Unavailable` and `SqlError`."""
        query = {**self._query, "fields": ",".join(fields)}
        query |= {} if key is None else {"key": key}
        query |= {} if partitions is None else {"partitions": ",".join(map(str, partitions))}
        query |= {} if limit is None else {"limit": str(limit)}
        try:
            with self._opened().stream("GET", f"{worker_url()}/v1/rows/{table}", params=query) as answer:
                _check(answer)
                yield from _lines(answer.iter_bytes())
        except UNREACHABLE as error:
            raise self._lost(f"/v1/rows/{table}", error) from None
        except CommandError as error:
            raise SqlError(error.message, CONNECTION_FAILED) from None

    def listed(self, path: str) -> Any:
        """Return the JSON that a path of the HTTP API answers. Raises `SqlError`."""
        deadline = time.monotonic() + 15.0
        while True:
            try:
                answer = self._opened().get(worker_url() + path)
                _check(answer)
                return content_of(answer)
            except UNREACHABLE as error:
                failure: Exception = self._lost(path, error)
            except Unavailable as error:
                failure = error
            except CommandError as error:
                raise SqlError(error.message, CONNECTION_FAILED) from None
            if time.monotonic() > deadline:
                raise SqlError(str(failure), CONNECTION_FAILED)
            time.sleep(0.5)

    def _opened(self) -> httpx.Client:
        if self._client is None:
            self._client = open_client(worker_url(), TIMEOUT)
        return self._client

    def _lost(self, path: str, error: Exception) -> Unavailable:
        """Return the error of a worker that does not answer; the next request may go to another one."""
        if self._client is not None:
            self._client.close()
            self._client = None
        return Unavailable(unreachable(worker_url() + path, error).message.rstrip("."))


def _check(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    answer.read()
    error = error_of(answer)
    if answer.status_code in LATER:
        raise Unavailable(error.message.rstrip("."))
    raise SqlError(error.message, "42501" if answer.status_code in (401, 403) else "58000")


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines of an answer, without one that is cut off at its end."""
    begun: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        begun.append(first)
        for other in others:
            if line := b"".join(begun):
                yield line
            begun = [other]
