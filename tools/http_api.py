"""Page of the HTTP API, made from ``ROUTES`` and the docstrings of ``streams/views``, in the order of ``ROUTES``.

A module is a section, introduced by its docstring. A method of a view is a request, described by its docstring.
"""

import inspect
import re
from collections.abc import Iterator
from itertools import groupby
from types import ModuleType
from typing import NamedTuple

from streams.views import ROUTES

METHODS = ("post", "get", "put", "delete")
TITLES = {"feed": "Live feeds", "operations": "Regions, timers and tasks", "pos": "Points of sale"}
"""Module -> title of its section, unless it is the module's name."""
INTRODUCTION = """# HTTP API

Any worker answers any request: it forwards a request to the worker that owns the key. Bodies are JSON, times are RFC
3339 in UTC, durations end in `_s`, money is an integer in minor units with an ISO 4217 code. Unknown fields of a body
are ignored. The body of a request has at most 256 KiB.

A list that is answered page by page takes `?limit=`, from 1 to 1000 rows, by default 100. Its answer has `next`: send
that as `?cursor=` for the next page; null on the last page. A page with a filter may have fewer rows than `limit`, or
none, before the last page: a request looks at a limited number of rows.

| status | meaning |
|---|---|
| 200, 201 | the event is applied; 200 also for a repeated event |
| 202 | the broker has the event; the decision takes over `DABBAWALA_DECISION_S`; see `Location` for the result |
| 400 | the body is not JSON |
| 401 | the key is missing, unknown, revoked or past its time |
| 403 | not for the role of the key; or a web page of another origin sent it: see `DABBAWALA_ALLOWED_ORIGINS` |
| 404 | unknown id, or a thing of another party |
| 408 | the body did not arrive within 10 s |
| 409 | the state does not allow the event |
| 413 | the body is too large |
| 415 | the body is not `application/json` by its `Content-Type` |
| 421 | the `Host` is none of the worker's: see `DABBAWALA_PUBLIC_URL` |
| 422 | the body or a parameter is invalid; `errors` names each field |
| 429 | more requests than the key's quota (`RateLimit-Policy`, `RateLimit`); repeat the request after `Retry-After` |
| 500 | the event could not be applied; it is a dead letter. `detail` names the incident in the worker's log |
| 503 | the partition is moving, Kafka does not answer, or the worker is busy; repeat the request after `Retry-After` |

Operators see personal data masked. With `?reveal=true&reason=TEXT` a GET shows it, and the audit has the reading before
there is an answer. Without a reason the answer is 422; if Kafka does not take the record, it is 503.

Errors are `application/problem+json` (RFC 9457). The routes below list what differs from this table or adds to it.
Every request but those of the probes needs a key of a role that may send it: see
[operations.md](operations.md#keys).
"""


class Request(NamedTuple):
    """A method of a view, under its path."""

    module: ModuleType
    name: str
    """Method and path."""
    meaning: str


def render() -> str:
    """Return the page of the HTTP API."""
    sections = groupby(_requests(), key=lambda request: request.module)
    return "\n".join([INTRODUCTION, *(_section(module, requests) for module, requests in sections)])


def _requests() -> Iterator[Request]:
    for path, view in ROUTES.items():
        module = inspect.getmodule(view)
        assert module is not None
        for method in METHODS:
            handler = view.__dict__.get(method)
            if handler is not None:
                yield Request(module, f"{method.upper()} {_shown(path)}", _docstring(handler))


def _section(module: ModuleType, requests: Iterator[Request]) -> str:
    name = module.__name__.rpartition(".")[2]
    title = TITLES.get(name, name.replace("_", " ").capitalize())
    parts = [f"## {title}", _docstring(module)]
    for request in requests:
        parts += [f"### `{request.name}`", request.meaning]
    return "\n\n".join(parts) + "\n"


def _shown(path: str) -> str:
    """Return a path with the choices of a variable in place of its name, such as `{retry|abandon}`."""
    return re.sub(r"\{(\w+):([^}]*)\}", lambda part: "{" + (part[1] if "." in part[2] else part[2]) + "}", path)


def _docstring(documented: object) -> str:
    text = inspect.getdoc(documented)
    assert text, f"{documented} has no docstring"
    return text.replace("``", "`")
