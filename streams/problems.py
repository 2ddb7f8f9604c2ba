"""Errors over HTTP: `application/problem+json` (RFC 9457), whatever went wrong where."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus

import msgspec
from aiohttp import web

from streams.engine import NotHere

log = logging.getLogger(__name__)

TYPES = "https://dabbawala.invalid/problems/"
"""Problem types are names, not addresses; `.invalid` (RFC 2606) says so."""


SOON = {"Retry-After": "1"}
"""With what will be right in a moment: ask again in a second."""


class FieldError(msgspec.Struct, frozen=True):
    """One field that is wrong: its JSON pointer (RFC 6901) and what to do."""

    pointer: str
    detail: str


class Problem(Exception):
    """Raised by a view; becomes the answer."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        errors: Sequence[FieldError] = (),
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.errors = status, kind, errors
        # it may repeat what somebody sent that was no text
        self.detail = detail.encode(errors="backslashreplace").decode()
        self.headers = headers

    def response(self) -> web.Response:
        """The answer that says it."""
        body = {
            "type": TYPES + self.kind,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = list(self.errors)
        return web.Response(
            status=self.status,
            body=msgspec.json.encode(body),
            content_type="application/problem+json",
            headers=self.headers,
        )


@web.middleware
async def problem_middleware(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Say every error, also those of routes that do not exist, as a problem."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        kind, detail = _HTTP_ERRORS.get(error.status, ("refused", error.reason))
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return Problem(error.status, kind, detail.format(request=request), headers=allow).response()
    except NotHere as error:
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "not-ready", f"{error}; try again", headers=SOON).response()
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return Problem(500, "internal", "this is a fault of ours; the worker's log has it").response()


_HTTP_ERRORS = {
    404: ("no-such-route", "there is no {request.path} here"),
    405: ("method-not-allowed", "{request.path} does not take {request.method}"),
    413: ("too-large", "the body is too large; the limit is 1 MiB"),
}
