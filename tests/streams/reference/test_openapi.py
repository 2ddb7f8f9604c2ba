"""The document of the HTTP API agrees with the routes, the rules, the docstrings and the problems of the code."""

import ast
import re
from collections.abc import Iterator
from typing import Any, cast

import jsonschema_rs
import msgspec
import pytest
from faust.web.drivers.aiohttp import Web
from openapi_spec_validator import validate

from streams.access.rules import RULES
from streams.reference import openapi
from streams.views import ROUTES
from streams.views.api_view import ApiView
from streams.views.orders import EXAMPLE
from streams.web.problems import KINDS
from tests.support.documented import Document, Undocumented, closed
from tests.support.services import unconnected_services
from tests.support.stack import ROOT
from topics.orders import PLACED

REQUESTS = list(openapi.requests_of(ROUTES))
IN_THE_INTRODUCTION = {"limit", "cursor", "reveal", "reason"}
"""Parameters that docs/http-api.md describes once."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document(ROUTES)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method and operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(msgspec.json.decode(msgspec.json.encode(document)))


def test_the_document_has_the_routes_of_a_worker(document: dict[str, Any]) -> None:
    router = cast(Web, unconnected_services().app.web).web_app.router
    served = {re.sub(r"\{(\w+):[^}]*\}", r"{\1}", resource.canonical) for resource in router.resources()}
    shown = {re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path) for path in ROUTES}
    assert set(document["paths"]) == shown == served


def test_each_operation_has_an_id_that_no_other_has(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids)) == sum(map(len, RULES.values()))


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.operation.name)
def test_security_is_that_of_the_rule(document: dict[str, Any], request_: openapi.Request) -> None:
    rule = RULES[request_.path][request_.method.upper()]
    shown = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", request_.path)
    allowed = [roles for way in document["paths"][shown][request_.method]["security"] for roles in way.values()]
    needs_key = not rule.public and rule.callback is None
    assert bool(allowed) is needs_key
    assert all(set(roles) == set(rule.roles) for roles in allowed)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.operation.name)
def test_docstring_and_declaration_agree(request_: openapi.Request) -> None:
    named = set(re.findall(r"`\?(\w+)=", request_.text)) | set(re.findall(r"`\?(\w+)=", request_.summary))
    assert named - IN_THE_INTRODUCTION <= set(request_.query)
    successes = {status for status in request_.answers if status < 400}
    declared = set(request_.operation.answers)
    assert successes <= declared, "an answer below 400 needs a type"
    assert declared - successes <= {202}, "an answer needs a line in the docstring"
    assert request_.summary


def test_a_method_without_a_declaration_is_named() -> None:
    class Undeclared(ApiView):
        async def get(self, request: object) -> None:
            """Return nothing."""

    with pytest.raises(LookupError, match=r"Undeclared\.get has no declaration"):
        openapi.document({"/livez": Undeclared})


def test_examples_are_valid(document: dict[str, Any]) -> None:
    checked = 0
    for path, method, operation in operations(document):
        contents = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in (content for each in contents for content in each.get("content", {}).values()):
            if "example" in content:
                schema = {**closed(content["schema"]), "components": closed(document["components"])}
                jsonschema_rs.validator_for(schema, validate_formats=True).validate(content["example"])
                checked += 1
        for parameter in operation["parameters"]:
            for example in [parameter[key] for key in ("example",) if key in parameter]:
                schema = {**parameter["schema"], "components": document["components"]}
                assert jsonschema_rs.is_valid(schema, example), (path, method, parameter["name"])
    assert checked > 40


def test_the_example_of_an_order_is_an_order() -> None:
    assert PLACED.read(msgspec.json.encode(EXAMPLE)).total == 64000


def kinds_in_the_code() -> set[str]:
    """Return the kinds of all problems that the worker's code raises."""
    found: set[str] = set()
    for file in (ROOT / "streams").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Problem" and len(node.args) > 1:
                found |= {str(each.value) for each in ast.walk(node.args[1]) if isinstance(each, ast.Constant)}
            if isinstance(node, ast.Assign | ast.AnnAssign) and "_HTTP_ERRORS" in ast.unparse(node).partition("=")[0]:
                assert isinstance(node.value, ast.Dict)
                found |= {each.elts[0].value for each in node.value.values}  # type: ignore[attr-defined]
    return found


def test_every_kind_of_problem_is_documented() -> None:
    assert kinds_in_the_code() == set(KINDS)


LIVE = b'{"status": "alive"}'


@pytest.mark.parametrize(
    ("method", "path", "status", "content_type", "body", "problem"),
    [
        ("GET", "/livez", 200, "application/json", LIVE, None),
        ("HEAD", "/livez", 200, "application/json", b"", None),
        ("GET", "/v1/tasks", 400, "text/plain", b"Invalid header value", None),
        ("GET", "/v1/tasks", 503, "", b"", None),
        ("GET", "/nowhere", 404, "application/problem+json", b"{}", None),
        ("DELETE", "/v1/orders", 405, "application/problem+json", b"{}", None),
        ("GET", "/nowhere", 200, "application/json", b"{}", "there is no such request"),
        ("GET", "/livez", 418, "application/json", LIVE, "this status is not documented"),
        ("GET", "/livez", 200, "text/plain", b"alive", "the document has"),
        ("GET", "/livez", 200, "application/json", b'{"status": "dead"}', "/status"),
        ("GET", "/livez", 200, "application/json", b"{}", "required"),
        ("GET", "/livez", 200, "application/json", b'{"status": "alive", "x": 1}', "x"),
        ("GET", "/v1/tasks", 503, "application/problem+json", b'{"type": "about:blank"}', "required"),
        ("POST", "/v1/calls/my-shop:1/refund/c-1/retry", 200, "application/json", b"{}", "required"),
    ],
)
def test_an_undocumented_answer_is_found(
    method: str, path: str, status: int, content_type: str, body: bytes, problem: str | None
) -> None:
    if problem is None:
        Document().check(method, path, status, content_type, body)
        return
    with pytest.raises(Undocumented, match=problem):
        Document().check(method, path, status, content_type, body)
