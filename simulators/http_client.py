"""The HTTP client of the simulators: it repeats a request under one idempotency key until the answer is final."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from hashlib import blake2b
from random import Random
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import aiohttp
import httpx
import msgspec
from httpx_aiohttp import HttpxAiohttpClient

from simulators.cli import Failure, Reporter
from topics.headers import IDEMPOTENCY_KEY

T = TypeVar("T")

TIMEOUT_S = 15.0
"""Above the 5 s that a worker may take to decide."""
MIN_RETRY_S, MAX_RETRY_S = 0.1, 2.0
PASSING = frozenset({408, 425, 429})
"""The client errors that are temporary (RFC 9110, RFC 8470, RFC 6585)."""
NOT_ADMITTED = frozenset({401, 403})
"""The worker does not admit the sender."""


class Answer(NamedTuple):
    """The answer to a call; its status is 0 if the call had no answer."""

    status: int
    body: bytes = b""
    why: str = ""
    is_under_way: bool = False
    """True if the worker is busy with the same call (409 with `Retry-After`)."""

    @property
    def final(self) -> bool:
        """Return whether a repeated call would get the same answer."""
        return 200 <= self.status < 500 and self.status not in PASSING and not self.is_under_way

    @property
    def detail(self) -> str:
        """The detail of a problem+json body; empty if there is none."""
        try:
            return str(msgspec.json.decode(self.body).get("detail", ""))
        except (msgspec.DecodeError, AttributeError):
            return ""

    def read(self, kind: type[T]) -> T:
        """Return the body as a type. Raises `Failure` if it has another form."""
        try:
            return msgspec.json.decode(self.body, type=kind)
        except msgspec.DecodeError as error:
            raise Failure(f"{self.why} was answered with a body that is not a {kind.__name__}: {error}") from None


class Caller(AbstractAsyncContextManager["Caller"]):
    """An HTTP client with retries. The pause between attempts doubles, with a jitter from the seed."""

    def __init__(self, reporter: Reporter, seed: str, worker: str = "", key: Callable[[], str] = str) -> None:
        """``key`` returns the key that only requests to ``worker``, a URL, carry."""
        self._worker = worker
        self._key = key
        self._reporter = reporter
        self._random = Random(f"calls/{seed}")
        self._client: httpx.AsyncClient = HttpxAiohttpClient(
            timeout=TIMEOUT_S,
            trust_env=False,  # a proxy of the environment is not for programs on this machine
            limits=httpx.Limits(max_connections=0),  # any number, for aiohttp: each long poll holds one
        )
        self._away = False

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def once(
        self, method: str, url: str, body: Any = None, key: str = "", timeout_s: float = TIMEOUT_S
    ) -> Answer:
        """Make one attempt. ``key`` is the `Idempotency-Key`, `<owner>/<operation>`; the owner decides the trace."""
        headers = {IDEMPOTENCY_KEY: key, "traceparent": traceparent(key)} if key else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._worker and url.startswith(f"{self._worker}/") and (own := self._key()):
            headers["Authorization"] = f"Bearer {own}"
        content = None if body is None else msgspec.json.encode(body)
        try:
            response = await self._client.request(method, url, content=content, headers=headers, timeout=timeout_s)
        except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError) as error:
            # httpx's transport passes some of aiohttp's errors on, garbled answers among them
            return Answer(0, why=f"{method} {url} ({type(error).__name__})")
        is_under_way = response.status_code == 409 and "Retry-After" in response.headers
        return Answer(response.status_code, response.content, f"{method} {url}", is_under_way)

    async def request_until_final(
        self,
        method: str,
        url: Callable[[], str],
        body: Any = None,
        key: str = "",
        *,
        undecided: bool = False,
        patience_s: float | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Answer:
        """Call until the answer is final; with ``undecided``, 202 is not final.

        ``url`` is evaluated before each attempt, because it may change. Raises `Failure` after ``patience_s`` seconds
        without a final answer.
        """
        began = time.monotonic()
        for pause in self._pauses():
            answer = await self.once(method, url(), body, key, timeout_s)
            self._notice(answer)
            if answer.status in NOT_ADMITTED:
                raise Failure(f"{answer.why}: {answer.detail}; name a key with --key-file or DABBAWALA_KEY")
            if answer.final and not (undecided and answer.status == 202):
                return answer
            if patience_s is not None and time.monotonic() - began > patience_s:
                last = f"HTTP {answer.status}" if answer.status else "no answer"
                raise Failure(
                    f"{answer.why} had no final answer for {patience_s:g} s (the last one: {last}): giving up"
                )
            await asyncio.sleep(pause)
        raise AssertionError("there is always another pause")

    async def wait_for_worker(self, worker: str, patience_s: float) -> None:
        """Wait until a worker is ready. Raises `Failure` after ``patience_s`` seconds."""
        deadline, is_noticed = time.monotonic() + patience_s, False
        while (await self.once("GET", f"{worker}/readyz", timeout_s=5)).status != 200:
            if time.monotonic() > deadline:
                raise Failure(
                    f"no worker is ready at {worker} after {patience_s:g} s: start one (`make worker`), "
                    "or name its address with --worker or DABBAWALA_URL"
                )
            if not is_noticed:
                self._reporter.notice(f"waiting for a worker at {worker}")
                is_noticed = True
            await asyncio.sleep(0.25)

    def _pauses(self) -> Iterator[float]:
        pause = MIN_RETRY_S
        while True:
            yield pause * self._random.uniform(0.5, 1)
            pause = min(2 * pause, MAX_RETRY_S)

    def _notice(self, answer: Answer) -> None:
        """Report once that calls have no answer, and once that they have one again."""
        away = answer.status == 0
        if away and not self._away:
            self._reporter.notice(f"no answer from {answer.why}: trying again until there is one")
        if self._away and not away:
            self._reporter.notice("answered again")
        self._away = away


def traceparent(key: str) -> str:
    """Return the trace of the owner that a key begins with (W3C Trace Context, https://www.w3.org/TR/trace-context/)."""
    trace = blake2b(key.partition("/")[0].encode(), digest_size=16).hexdigest()
    span = blake2b(key.encode(), digest_size=8).hexdigest()
    return f"00-{trace}-{span}-01"
