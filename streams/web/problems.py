"""Errors over HTTP: every error is an `application/problem+json` document (RFC 9457)."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus

import msgspec
from aiohttp import web

from exactly_once import PartitionNotOwned

log = logging.getLogger(__name__)

TYPES = "https://dabbawala.invalid/problems/"
"""Prefix of problem types. They are names and not addresses, hence `.invalid` (RFC 2606)."""

SOON = {"Retry-After": "1"}
"""Header of an answer to a request that may succeed in a second."""


class FieldError(msgspec.Struct, frozen=True):
    """One field that is wrong: its JSON pointer (RFC 6901) and what to do."""

    pointer: str
    detail: str


class Problem(Exception):
    """Error of a request. A view raises it, and it becomes the answer."""

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
        self.status = status
        self.kind = kind
        self.errors = errors
        # it may quote bytes of the request that are not text
        self.detail = detail.encode(errors="backslashreplace").decode()
        self.headers = headers

    def response(self) -> web.Response:
        """Return the problem+json answer."""
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
    """Answer every error as a problem, also for routes that do not exist."""
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
    except PartitionNotOwned as error:
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "not-ready", f"{error}; try again", headers=SOON).response()
    except Exception:
        log.exception("%s %r failed", request.method, request.path)
        return Problem(500, "internal", "the worker failed to handle this request; its log has the error").response()


_HTTP_ERRORS = {
    404: ("no-such-route", "there is no {request.path} here"),
    405: ("method-not-allowed", "{request.path} does not take {request.method}"),
    413: ("too-large", "the body is too large; the limit is 1 MiB"),
}
