"""Errors over HTTP: every error is an `application/problem+json` document (RFC 9457)."""

import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from textwrap import indent
from uuid import uuid4

import msgspec
from aiohttp import web

from exactly_once import PartitionNotOwned
from streams.logs import about_order
from topics.text import plain

log = logging.getLogger(__name__)

TYPES = "https://dabbawala.invalid/problems/"
"""Prefix of problem types. They are names and not addresses, hence `.invalid` (RFC 2606)."""

KINDS: Mapping[str, str] = {
    "audit-unread": "the audit topic cannot be read",
    "broker-silent": "Kafka does not acknowledge the record in time",
    "busy": "the worker does as much of this as it can",
    "cross-site": "a web page of another origin sent the request",
    "erased": "the personal data of the order was erased",
    "history-unread": "the history topic cannot be read",
    "internal": "the worker failed; its log has the reason",
    "invalid": "the body, a parameter or a header is wrong; `errors` names each field",
    "method-not-allowed": "the route does not take this method",
    "misdirected": "the `Host` is none of the worker's",
    "no-key": "the key is missing, unknown, revoked or past its time",
    "no-such-route": "no route has this path",
    "not-acceptable": "`Accept` excludes the answer",
    "not-json": "the body is not `application/json` by its `Content-Type`",
    "not-ready": "a partition is being opened, or the worker starts or stops",
    "not-your-role": "the request is not for the role of the key",
    "not-yours": "the order is of another provider than the key",
    "overloaded": "the task gets more requests than it can decide",
    "owner-unreachable": "the worker that owns the partition does not answer",
    "refused": "the state does not allow the event",
    "too-large": "the body is too large",
    "too-many-requests": "the key has used its quota, or its share of the places",
    "too-slow": "the body did not arrive in time",
    "under-way": "a request with this `Idempotency-Key` is under way",
    "unknown": "there is no such thing, or it is of another party",
    "unreadable": "the body is not what its headers say",
}
"""Kind of a problem, the end of its type -> meaning."""

SOON = {"Retry-After": "1"}
"""Header of an answer to a request that may succeed in a second."""


class FieldError(msgspec.Struct, frozen=True):
    """One field that is wrong: its JSON pointer (RFC 6901) and what to do."""

    pointer: str
    detail: str


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of an answer to a request that failed (RFC 9457)."""

    type: str
    """Name of the kind of problem, stable and unique: `TYPES` and a key of `KINDS`."""
    title: str
    """Phrase of the status."""
    status: int
    detail: str
    """Reason for people, and the next step."""
    errors: tuple[FieldError, ...] = ()


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
        # they may quote the request, with bytes that are no text and characters that drive a terminal
        self.errors = [FieldError(_harmless(error.pointer), _harmless(error.detail)) for error in errors]
        self.detail = _harmless(detail)
        self.headers = headers

    def response(self) -> web.Response:
        """Return the problem+json answer."""
        body = ProblemDocument(
            type=TYPES + self.kind,
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            errors=tuple(self.errors),
        )
        return web.Response(
            status=self.status,
            body=msgspec.json.encode(body),
            content_type="application/problem+json",
            headers=self.headers,
        )


def _harmless(text: str) -> str:
    return plain(text.encode(errors="backslashreplace").decode())


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
        kind, template = _HTTP_ERRORS.get(error.status, ("refused", ""))
        detail = template.format(path=request.path, method=request.method) if template else error.reason
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return Problem(error.status, kind, detail, headers=allow).response()
    except PartitionNotOwned as error:
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "not-ready", f"{error}; try again", headers=SOON).response()
    except Exception:
        # indented, because the text of an exception may contain lines that look like those of a log
        stack = indent(traceback.format_exc(), "  | ")
        return incident(
            "the worker failed to handle this request",
            f"{request.method} {_path_of(request)!r} failed\n{stack}",
            request.match_info.get("order", ""),
        ).response()


def _path_of(request: web.Request) -> str:
    """Return the path of a request as the log may have it: the capability of a callback is a secret."""
    capability = request.match_info.get("capability")
    return request.path.replace(capability, "...") if capability else request.path


def incident(what: str, reason: str, order: str = "") -> Problem:
    """Log the reason of a failure under a new id, and return a 500 problem that names the id and not the reason.

    ``order`` is the order that it is about, if there is one.
    """
    number = uuid4().hex[:12]
    log.error("incident %s: %s", number, reason, extra=about_order(order) if order else None)
    return Problem(500, "internal", f"{what}; the worker's log has the reason under incident {number}")


_HTTP_ERRORS = {
    404: ("no-such-route", "there is no {path} here"),
    405: ("method-not-allowed", "{path} does not take {method}"),
    413: ("too-large", "the body is too large; the limit is 256 KiB"),
}
"""Status of an error of aiohttp -> kind and detail."""
