"""HTTP client of a worker: its address, its answers and its errors."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from streams.access.keys import Role
from streams.access.local_keys import local_key
from streams.cli.errors import CommandError, NotFound, NoWorker, Refused
from streams.local.worker_slots import worker_urls
from streams.settings import Settings, WrongSetting
from topics.party_urls import is_loopback

TIMEOUT_S = 15.0
PATIENCE_S = 15.0
"""Time for which a worker may be not ready. A partition that moves is not open meanwhile."""
RETRY_S = 0.5
MAX_PAGE = 1000
"""Rows in one request of `--all`."""

UNREACHABLE = (httpx.HTTPError, httpx.InvalidURL, UnicodeError)
"""Errors of an address without a worker. The last one comes from the look-up of a name that cannot be."""
KINDS: Mapping[int, type[CommandError]] = {httpx.codes.NOT_FOUND: NotFound, httpx.codes.CONFLICT: Refused}
"""HTTP status -> the error that the command ends with."""


def worker_url(directory: Path | None = None) -> str:
    """Return `DABBAWALA_URL`, else the URL of the first worker that runs under `directory` (`DABBAWALA_DIR`)."""
    if url := os.environ.get("DABBAWALA_URL"):
        return _checked(url).rstrip("/")
    if directory is None:
        try:
            directory = Settings.from_environment().directory
        except WrongSetting as wrong:
            raise CommandError(str(wrong)) from None
    if urls := worker_urls(directory):
        return urls[0]
    raise NoWorker(f"No worker runs under {directory}: start one with `make worker`, or set DABBAWALA_URL.")


def credentials() -> dict[str, str]:
    """Return the header with the operator's key: `DABBAWALA_KEY`, else this installation's; none without one."""
    try:
        key = local_key(Settings.from_environment().directory, Role.OPERATOR)
    except WrongSetting as wrong:
        raise CommandError(str(wrong)) from None
    return {"Authorization": f"Bearer {key}"} if key else {}


def _checked(url: str) -> str:
    """Return the URL; `CommandError` unless a server could listen there."""
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL:
        found = httpx.URL()
    if found.scheme not in ("http", "https") or not found.host:
        raise CommandError(f"DABBAWALA_URL={url!r}: it must be a URL, such as http://127.0.0.1:6066.")
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
    """Return the JSON that a worker answers. See `request` for the errors."""
    return content_of(request(path, query, method=method, body=body, headers=headers, timeout_s=timeout_s))


def request(
    path: str,
    query: Mapping[str, Any] | None = None,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> httpx.Response:
    """Return a worker's answer; `NotFound` for 404, `Refused` for 409, `CommandError` for every other error.

    A worker that is not ready is asked again: every request of the commands may be sent twice.
    """
    address, deadline = worker_url() + path, time.monotonic() + PATIENCE_S
    while True:
        try:
            with open_client(address, timeout_s) as client:
                answer = client.request(
                    method,
                    address,
                    params=_given(query or {}),
                    content=body,
                    headers=_in_bytes(_headers(body) | dict(headers or {})),
                )
        except UNREACHABLE as error:
            raise unreachable(address, error) from None
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
            break
        time.sleep(RETRY_S)
    if not answer.is_success:
        raise error_of(answer)
    return answer


def open_client(address: str, timeout: httpx.Timeout | float) -> httpx.Client:
    """Return an HTTP client with the operator's key for this address.

    It uses the environment's proxies, but for a worker on this machine.

    Raises `CommandError` if the environment's proxies cannot be used.
    """
    is_here = is_loopback(httpx.URL(address).host)
    try:
        return httpx.Client(headers=credentials(), timeout=timeout, trust_env=not is_here)
    except (ImportError, ValueError, httpx.InvalidURL) as error:  # in turn: a SOCKS proxy, an unknown scheme, no URL
        raise CommandError(
            f"The proxies of the environment cannot be used ({error}): correct or unset HTTP_PROXY, HTTPS_PROXY, "
            "ALL_PROXY and NO_PROXY."
        ) from None


def content_of(answer: httpx.Response) -> Any:
    """Return the JSON of an answer."""
    try:
        return answer.json()
    except ValueError:
        raise CommandError(f"{answer.url} does not answer with JSON, as a worker would: check DABBAWALA_URL.") from None


def ask_list(path: str, member: str, query: Mapping[str, Any], *, every: bool) -> dict[str, Any]:
    """Return a page of a list: its rows under `member`, the cursor of the next page under `next`; or `every` row."""
    if every:
        return {member: list(_every(path, member, query)), "next": None}
    page: dict[str, Any] = ask(path, query)
    while not page[member] and page["next"] is not None:  # no row of those that the worker looked at matched a filter
        page = ask(path, {**query, "cursor": page["next"]})
    return page


def _every(path: str, member: str, query: Mapping[str, Any]) -> Iterator[Any]:
    cursor = query.get("cursor")
    while True:
        page = ask(path, {**query, "limit": MAX_PAGE, "cursor": cursor})
        yield from page[member]
        if (cursor := page["next"]) is None:
            return


def _given(query: Mapping[str, Any]) -> dict[str, str]:
    """The query parameters that have a value."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in query.items()
        if value not in (None, False)
    }


def _headers(body: bytes | None) -> dict[str, str]:
    """Return the headers of every request: `Accept`, and with a body its type."""
    return {"Accept": "application/json"} | ({} if body is None else {"Content-Type": "application/json"})


def _in_bytes(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    """Encode the headers in UTF-8: httpx would take them as ASCII. Other bytes of the command line stay as they are."""
    return {name.encode(): value.encode(errors="surrogateescape") for name, value in headers.items()}


def unreachable(address: str, error: Exception) -> CommandError:
    """Return the error for an address that does not answer."""
    return CommandError(f"{address} does not answer ({type(error).__name__}): is the worker running?")


def error_of(answer: httpx.Response) -> CommandError:
    """Return the error that a worker answered with, as one sentence."""
    try:
        problem = answer.json()
        detail = str(problem["detail"])
    except (ValueError, TypeError, KeyError):
        return CommandError(f"{answer.url} answers {answer.status_code}, as no worker would: check DABBAWALA_URL.")
    others = [f"{error['pointer']}: {error['detail']}" for error in problem.get("errors", ())]
    if len(others) > 1 or (others and problem["errors"][0]["detail"] not in detail):
        detail = f"{detail} ({'; '.join(others)})"
    kind = KINDS.get(answer.status_code, CommandError)
    return kind(f"{detail[:1].upper()}{detail[1:].rstrip('.')}.")
