"""Page of the HTTP API, made from ``ROUTES`` and the docstrings of ``streams/views``, in the order of ``ROUTES``.

A module is a section, introduced by its docstring. A method of a view is a request, described by its docstring.
"""

import inspect
import re
from collections.abc import Iterator
from itertools import groupby
from types import ModuleType
from typing import NamedTuple

from streams.reference.openapi import ACCEPTED, METHODS, PROBLEMS, TITLES, documentation
from streams.views import ROUTES
from streams.web.problems import KINDS

STATUSES = "\n".join(f"| {status} | {meaning} |" for status, meaning in PROBLEMS.items())
TYPES = "\n".join(f"| `{kind}` | {meaning} |" for kind, meaning in KINDS.items())
INTRODUCTION = f"""# HTTP API

Any worker answers any request: it forwards a request to the worker that owns the key. Bodies are JSON, times are RFC
3339 in UTC, durations end in `_s`, money is an integer in minor units with an ISO 4217 code. Unknown fields of a body
are ignored. The body of a request has at most 256 KiB.

A list that is answered page by page takes `?limit=`, from 1 to 1000 rows, by default 100. Its answer has `next`: send
that as `?cursor=` for the next page; null on the last page. A page with a filter may have fewer rows than `limit`, or
none, before the last page: a request looks at a limited number of rows.

| status | meaning |
|---|---|
| 200, 201 | the event is applied; 200 also for a repeated event |
| 202 | {ACCEPTED} |
{STATUSES}

Operators see personal data masked. With `?reveal=true&reason=TEXT` a GET shows it, and the audit has the reading before
there is an answer. Without a reason the answer is 422; if Kafka does not take the record, it is 503.

[openapi.json](openapi.json) is this page for programs. A worker serves it at `/openapi.json`, and a page with the types
and an example of each request at `/docs/`, to every key.

The routes below list what differs from this table or adds to it. Every request but those of the probes needs a key of a
role that may send it: see [operations.md](operations.md#keys).

Two answers come before the API: 400 as text to a request that is not HTTP, and 503 without a body if a worker has too
many connections.

Other errors are `application/problem+json` (RFC 9457). `type` is `https://dabbawala.invalid/problems/` and one of:

| type | meaning |
|---|---|
{TYPES}
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
                yield Request(module, f"{method.upper()} {_shown(path)}", documentation(handler))


def _section(module: ModuleType, requests: Iterator[Request]) -> str:
    name = module.__name__.rpartition(".")[2]
    title = TITLES.get(name, name.replace("_", " ").capitalize())
    parts = [f"## {title}", documentation(module)]
    for request in requests:
        parts += [f"### `{request.name}`", request.meaning]
    return "\n\n".join(parts) + "\n"


def _shown(path: str) -> str:
    """Return a path with the choices of a variable in place of its name, such as `{retry|abandon}`."""
    return re.sub(r"\{(\w+):([^}]*)\}", lambda part: "{" + (part[1] if "." in part[2] else part[2]) + "}", path)
