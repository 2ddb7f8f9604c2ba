"""Check of answers against the document of the HTTP API: the status, the type of content and the body."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import httpx
import jsonschema_rs

from streams.reference import openapi
from streams.views import ROUTES

PROBE_OF_ROUTES = frozenset({404, 405})
"""Statuses for a path or method that does not exist, which no document lists."""
BEFORE_THE_API = frozenset({(400, "text/plain"), (503, "")})
"""Answers to a request that is not HTTP, and on a connection for which the worker has no place."""


class Undocumented(AssertionError):
    """The answer differs from the document."""


class Document:
    """The document, with schemas that permit no field that they do not name."""

    def __init__(self) -> None:
        document = openapi.document(ROUTES)
        self._components = closed(document["components"])
        self._paths = [
            (re.compile(re.sub(r"\{\w+(:[^}]*)?\}", _variable, path)), methods)
            for path, methods in zip(ROUTES, document["paths"].values(), strict=True)
        ]
        self._validators: dict[int, Any] = {}

    def check(self, method: str, path: str, status: int, content_type: str, body: bytes | None) -> None:
        """Raise `Undocumented` if the answer is not one of the document. The body of a stream is None."""
        if (status, content_type) in BEFORE_THE_API:
            return
        asked = f"{method} {path} -> {status} {content_type}"
        operation = self._operation("get" if method == "HEAD" else method.lower(), path)
        if operation is None:
            if status not in PROBE_OF_ROUTES and not (method == "OPTIONS" and status == 204):
                raise Undocumented(f"{asked}: there is no such request")
            return
        answer = operation["responses"].get(str(status))
        if answer is None:
            raise Undocumented(f"{asked}: this status is not documented")
        if "$ref" in answer:
            answer = self._components["responses"][answer["$ref"].rpartition("/")[2]]
        content = answer.get("content", {})
        if content_type not in (content or {""}) and method != "HEAD":
            raise Undocumented(f"{asked}: the document has {list(content)}")
        if body and content_type.endswith(("/json", "+json")) and "schema" in content[content_type]:
            self._check_body(asked, content[content_type]["schema"], body)

    def _operation(self, method: str, path: str) -> Mapping[str, Any] | None:
        for pattern, methods in self._paths:
            if pattern.fullmatch(path):
                found: Mapping[str, Any] | None = methods.get(method)
                return found
        return None

    def _check_body(self, asked: str, schema: dict[str, Any], body: bytes) -> None:
        validator = self._validators.get(id(schema))
        if validator is None:
            whole = {**schema, "components": self._components}
            validator = self._validators[id(schema)] = jsonschema_rs.validator_for(whole, validate_formats=True)
        for error in validator.iter_errors(httpx.Response(200, content=body).json()):
            raise Undocumented(f"{asked}: /{'/'.join(map(str, error.instance_path))}: {error.message[:500]}")


@cache
def document() -> Document:
    """Return the document, made once in a process."""
    return Document()


async def check_answer(answer: httpx.Response) -> None:
    """Check an answer: a hook of a client of httpx."""
    content_type = answer.headers.get("Content-Type", "").partition(";")[0]
    body = None if content_type == "text/event-stream" else await answer.aread()
    path = answer.request.url.raw_path.decode().partition("?")[0]  # a slash in a variable stays %2F
    document().check(answer.request.method, path, answer.status_code, content_type, body)


def closed(schema: Any) -> Any:
    """Return schemas whose objects have no other fields than the named ones."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(part) for name, part in schema.items()}
    if found.get("type") == "object" and "properties" in found:
        found.setdefault("additionalProperties", False)
    return found


def _variable(found: re.Match[str]) -> str:
    return f"(?:{found[1][1:]})" if found[1] else "[^{}/]+"
