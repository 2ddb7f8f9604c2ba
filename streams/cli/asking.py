"""Asking a worker: which one, what it answers, and what to do when it does not."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from streams.cli.errors import CommandError, NotThere, NoWorker, Refused
from streams.embedded.slots import worker_urls
from streams.settings import Settings, WrongSetting

TIMEOUT_S = 15.0
PATIENCE_S = 15.0
"""How long a worker may say that it is not ready yet: as long as a partition takes to move."""
ASK_AGAIN_S = 0.5
PAGE = 1000
"""Rows a request, where all of them are asked for."""

KINDS: Mapping[int, type[CommandError]] = {httpx.codes.NOT_FOUND: NotThere, httpx.codes.CONFLICT: Refused}
"""What the command ends with when a worker answers so."""


def worker_url(directory: Path | None = None) -> str:
    """Where a worker listens: `DABBAWALA_URL`, else the first one that runs under `directory` (`DABBAWALA_DIR`)."""
    if url := os.environ.get("DABBAWALA_URL"):
        return _usable(url).rstrip("/")
    if directory is None:
        try:
            directory = Settings.from_environment().directory
        except WrongSetting as wrong:
            raise CommandError(str(wrong)) from None
    if urls := worker_urls(directory):
        return urls[0]
    raise NoWorker(f"No worker runs under {directory}: start one with `make worker`, or name one in DABBAWALA_URL.")


def _usable(url: str) -> str:
    """Else nobody could ever answer there, however long somebody waits for it."""
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL:
        found = httpx.URL()
    if found.scheme not in ("http", "https") or not found.host:
        raise CommandError(f"DABBAWALA_URL={url!r}: it must be a URL, as http://127.0.0.1:6066 is one.")
    return url


def ask(
    path: str,
    query: Mapping[str, Any] | None = None,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Any:
    """What a worker answers, as JSON. `NotThere` where it knows no such thing, `CommandError` where it refuses.

    While it says that it is not ready it is asked again: every request of ours may be made twice.
    """
    address, deadline = worker_url() + path, time.monotonic() + PATIENCE_S
    while True:
        try:
            answer = httpx.request(
                method,
                address,
                params=_given(query or {}),
                content=body,
                headers=_in_bytes({"Accept": "application/json", **(headers or {})}),
                timeout=timeout_s,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise silent(address, error) from None
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
            return _content(answer)
        time.sleep(ASK_AGAIN_S)


def ask_list(path: str, member: str, query: Mapping[str, Any], *, every: bool) -> dict[str, Any]:
    """A page of a list, its rows under `member` and under `next` the cursor of the page after it; or `every` row."""
    if every:
        return {member: list(_every(path, member, query)), "next": None}
    page: dict[str, Any] = ask(path, query)
    return page


def _every(path: str, member: str, query: Mapping[str, Any]) -> Iterator[Any]:
    cursor = query.get("cursor")
    while True:
        page = ask(path, {**query, "limit": PAGE, "cursor": cursor})
        yield from page[member]
        if (cursor := page["next"]) is None:
            return


def _given(query: Mapping[str, Any]) -> dict[str, str]:
    """Those parameters that were given."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in query.items()
        if value not in (None, False)
    }


def _in_bytes(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    """httpx takes text to be ASCII. What the command line had that was no text goes on as it came."""
    return {name.encode(): value.encode(errors="surrogateescape") for name, value in headers.items()}


def silent(address: str, error: Exception) -> CommandError:
    """Nobody answers there."""
    return CommandError(f"{address} does not answer ({type(error).__name__}): is the worker running?")


def refused(answer: httpx.Response) -> CommandError:
    """What a worker says instead of an answer, in a sentence."""
    try:
        problem = answer.json()
        detail = str(problem["detail"])
    except (ValueError, TypeError, KeyError):
        return CommandError(f"{answer.url} answers {answer.status_code}, which no worker of Dabbawala does.")
    others = [f"{error['pointer']}: {error['detail']}" for error in problem.get("errors", ())]
    if len(others) > 1 or (others and problem["errors"][0]["detail"] not in detail):
        detail = f"{detail} ({'; '.join(others)})"
    kind = KINDS.get(answer.status_code, CommandError)
    return kind(f"{detail[:1].upper()}{detail[1:].rstrip('.')}.")


def _content(answer: httpx.Response) -> Any:
    if not answer.is_success:
        raise refused(answer)
    try:
        return answer.json()
    except ValueError:
        raise CommandError(f"{answer.url} answers with something else than JSON: is that a worker?") from None
