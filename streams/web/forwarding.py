"""Routing of requests between workers: the worker that owns a key's partition answers for it.

Any worker takes any request. If another worker owns the partition, the request is forwarded to it, once: a forwarded
request is never forwarded again, so two workers that disagree about the owner cannot pass it back and forth.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from http import HTTPStatus
from typing import Any

import aiohttp
import httpx
import msgspec
from aiohttp import web
from httpx_aiohttp import AiohttpTransport

from exactly_once import Engine
from streams.web.doorkeeper import FORWARDED, Doorkeeper, is_forwarded
from streams.web.problems import SOON, Problem
from streams.web.requests import is_text, read_bytes
from topics.headers import IDEMPOTENCY_KEY

FORWARD_TIMEOUT_S = 40.0
"""Limit of a forwarded request; longer than the longest long poll."""
_REQUEST_HEADERS = {"content-type", IDEMPOTENCY_KEY.lower(), "traceparent", "accept"}
_RESPONSE_HEADERS = {"content-type", "location", "retry-after"}


def http_client() -> httpx.AsyncClient:
    """Return the client that forwards requests."""
    # 0 means no limit in aiohttp: each forwarded long poll holds a connection, and no request may wait for one
    transport = AiohttpTransport(limits=httpx.Limits(max_connections=0))
    return httpx.AsyncClient(transport=transport)


class Forwarding:
    """Forwards requests of one worker to the others."""

    def __init__(
        self,
        engine: Engine,
        doorkeeper: Doorkeeper,
        this_worker: Callable[[], str],
        make_client: Callable[[], httpx.AsyncClient] = http_client,
    ) -> None:
        """``this_worker`` returns the URL of this worker; ``make_client`` is called at the first forwarded request."""
        self._engine = engine
        self._doorkeeper = doorkeeper
        self._this_worker = this_worker
        self._make_client = make_client
        self._client: httpx.AsyncClient | None = None

    async def forward_to_owner(self, request: web.Request, key: str, **more: str) -> web.Response | None:
        """Return the answer of the worker that owns the key; None if this worker owns it."""
        return await self.forward_to_partition(request, self._engine.partition_of(key.encode()), **more)

    async def forward_to_partition(self, request: web.Request, partition: int, **more: str) -> web.Response | None:
        """Return the answer of the worker that owns the partition; None if this worker owns it.

        ``more`` replaces headers of the forwarded request. Raises a 503 problem while no worker has the partition open.
        """
        engine = self._engine
        if partition in engine.open_partitions():
            if request.method == "GET":  # a decision verifies the ownership by its commit
                await engine.verify_ownership(partition)
            return None
        owner = engine.owners().get(partition)
        if owner is None or owner.rstrip("/") == self.this_worker() or is_forwarded(request):
            state = (
                f"is held: {engine.clock_skewed[partition]}" if partition in engine.clock_skewed else "is being opened"
            )
            raise Problem(503, "not-ready", f"partition {partition} {state}; try again", headers=SOON)
        return await self.forward(request, owner, FORWARD_TIMEOUT_S, **more)

    async def ask_all_workers(self, request: web.Request, own: list[Any], member: str) -> list[Any]:
        """Return this worker's rows and those of the other workers, read from `member` of their answers."""
        others = self.other_workers()
        if is_forwarded(request) or not others:
            return own
        answers = await asyncio.gather(*(self.forward(request, owner, Accept="application/json") for owner in others))
        for answer in answers:
            if answer.status != HTTPStatus.OK:
                raise Problem(503, "owner-unreachable", "another worker cannot answer now; try again", headers=SOON)
        return own + [row for answer in answers for row in msgspec.json.decode(answer.text or "")[member]]

    def this_worker(self) -> str:
        """Return the URL of this worker."""
        return self._this_worker()

    def other_workers(self) -> list[str]:
        """Return the URLs of the other workers that own partitions."""
        return sorted({owner.rstrip("/") for owner in self._engine.owners().values()} - {self.this_worker()})

    async def forward(
        self, request: web.Request, owner: str, within_s: float = FORWARD_TIMEOUT_S, /, **more: str
    ) -> web.Response:
        """Send the same request to another worker; ``within_s`` limits its silence, ``more`` replaces headers.

        Raises a 503 problem if the worker does not answer.
        """
        forwarded = await self._forwarded(request, owner, within_s, more)
        try:
            answer = await self._open_client().send(forwarded)
        except (httpx.HTTPError, aiohttp.ClientError) as error:
            raise _unreachable(owner, error) from None
        kept = {name: value for name, value in answer.headers.items() if name.lower() in _RESPONSE_HEADERS}
        return web.Response(status=answer.status_code, body=answer.content, headers=kept)

    async def stream(self, request: web.Request, owner: str) -> AsyncGenerator[bytes, None]:
        """Send the same request to another worker, and yield the bytes of its answer as they come.

        Raises a 503 problem if the worker does not answer, or its answer breaks off.
        """
        answer: httpx.Response | None = None
        try:
            forwarded = await self._forwarded(request, owner, FORWARD_TIMEOUT_S, {})
            answer = await self._open_client().send(forwarded, stream=True)
            if answer.status_code != HTTPStatus.OK:
                raise Problem(503, "owner-unreachable", f"{owner} cannot answer now; try again", headers=SOON)
            async for chunk in answer.aiter_bytes():
                yield chunk
        except (httpx.HTTPError, aiohttp.ClientError) as error:
            raise _unreachable(owner, error) from None
        finally:
            if answer is not None:
                await answer.aclose()

    async def _forwarded(
        self, request: web.Request, owner: str, within_s: float, more: Mapping[str, str]
    ) -> httpx.Request:
        forwarded = {name: value for name, value in request.headers.items() if name.lower() in _REQUEST_HEADERS}
        content = await read_bytes(request)
        headers = {**forwarded, **more, FORWARDED: self._doorkeeper.token_for(request, content)}
        return self._open_client().build_request(
            request.method,
            owner.rstrip("/") + request.path_qs,
            content=content,
            # as bytes, because httpx takes text to be ASCII; a header that is not text has no meaning to a view
            headers={name.encode(): value.encode() for name, value in headers.items() if is_text(value)},
            timeout=httpx.Timeout(FORWARD_TIMEOUT_S, read=within_s),
        )

    async def close(self) -> None:
        """Close the connections to other workers."""
        client, self._client = self._client, None  # first: a request that comes meanwhile must not get a closed client
        if client is not None:
            await client.aclose()

    def _open_client(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = self._make_client()
        return self._client


def _unreachable(owner: str, error: Exception) -> Problem:
    detail = f"its owner {owner} does not answer ({type(error).__name__}); try again"
    return Problem(503, "owner-unreachable", detail, headers=SOON)
