"""Reading requests and writing answers: bodies, ids in paths, idempotency keys, JSON."""

import asyncio
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from http import HTTPStatus
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from streams.web.problems import FieldError, Problem
from topics import patterns
from topics.headers import IDEMPOTENCY_KEY
from topics.records import NotJson, Reader, Undecodable

MAX_BODY_S = 10.0
"""Time that a client may take to send a body."""
MAX_KEY_PART_LENGTH = 64
"""Characters of an `Idempotency-Key` that becomes part of an event's id unchanged; a longer key is hashed."""
IDEMPOTENT: Mapping[str, Any] = MappingProxyType(
    {
        IDEMPOTENCY_KEY: Annotated[
            str, Meta(pattern=patterns.IDEMPOTENCY_KEY, description="Requests with one key have one effect.")
        ]
    }
)
"""Type of the header of a request with an effect."""

T = TypeVar("T")


def respond(status: int, body: Any, **headers: str) -> web.Response:
    """Return a JSON answer."""
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers or None
    )


async def read_body(request: web.Request, reader: Reader[T]) -> T:
    """Return the body as the reader's type. Raises a problem that names the field that is wrong."""
    return parse_body(await read_bytes(request), reader)


def parse_body(body: bytes, reader: Reader[T]) -> T:
    """Return bytes as the reader's type, no bytes as an empty object. Raises a problem that names the wrong field."""
    try:
        return reader.read(body or b"{}")
    except Undecodable as wrong:
        raise Problem(
            HTTPStatus.BAD_REQUEST if isinstance(wrong, NotJson) else HTTPStatus.UNPROCESSABLE_ENTITY,
            "invalid",
            f"the body cannot be used: {wrong}",
            [FieldError(wrong.pointer, wrong.reason)],
        ) from None


async def read_bytes(request: web.Request) -> bytes:
    """Return the body. Raises a problem if it is slower than `MAX_BODY_S`, or is not what its headers announce."""
    try:
        async with asyncio.timeout(MAX_BODY_S):
            return await request.read()
    except TimeoutError:
        why = f"the body did not arrive within {MAX_BODY_S:g} s; send it again with the same key"
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, "too-slow", why) from None
    except web.RequestPayloadError as error:
        why = getattr(error.__cause__, "message", str(error))
        raise Problem(HTTPStatus.BAD_REQUEST, "unreadable", f"the body is not what its headers say: {why}") from None


def parse_id(value: str, kind: Any, what: str) -> str:
    """Return a path's variable as an id. Raises a 404 problem if it cannot be the id of ``what``."""
    try:
        return str(msgspec.convert(value, kind))
    except msgspec.ValidationError:
        raise Problem(404, "unknown", f"{value!r} cannot be the id of {what}") from None


def idempotency_key(request: web.Request) -> str:
    """Return the request's `Idempotency-Key`, without quotes and escapes; empty if absent.

    The key is a string of RFC 9651, as draft-ietf-httpapi-idempotency-key-header-07 has it. Raises a 400 problem.
    """
    given = request.headers.getall(IDEMPOTENCY_KEY, [])
    if not given:
        return ""
    found = re.search(patterns.IDEMPOTENCY_KEY, given[0].strip()) if len(given) == 1 else None
    if found is None:
        raise Problem(400, "invalid", f"Idempotency-Key: {patterns.ADVICE[patterns.IDEMPOTENCY_KEY]}")
    return re.sub(r"\\(.)", r"\1", found[1]) if found[1] else found[2]


def key_part(request: web.Request, new_id: Callable[[], str]) -> str:
    """Return the part of an event's id that stands for the request: the same for the same `Idempotency-Key`.

    A long key is hashed. Without a key the part is ``new_id()``.
    """
    key = idempotency_key(request) or new_id()
    return key if len(key) <= MAX_KEY_PART_LENGTH else sha256(key.encode()).hexdigest()


def is_text(header: str) -> bool:
    """Return whether all of a header is UTF-8: aiohttp makes surrogates of other bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in header)
