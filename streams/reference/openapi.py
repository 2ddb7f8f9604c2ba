"""OpenAPI document of the HTTP API, made from the routes, their rules, and what the views declare and document.

The docstring of a method begins with its summary. A line `- 409: ...` describes an answer: without a declared type it
is a problem, beside those that every request of this form may get (`PROBLEMS`).
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

from msgspec import Meta

from streams.access.keys import Role
from streams.access.rules import OPERATORS, RULES, Rule
from streams.reference.examples import example_of
from streams.reference.schemas import COMPONENTS, DIALECT, schemas_of
from streams.web.browser_rules import PROBES
from streams.web.operation import JSON, Operation, operation_of
from streams.web.operators import REVEAL_QUERY
from streams.web.problems import KINDS, TYPES, ProblemDocument
from topics import patterns
from topics.identity import OrderId, PartyId

METHODS = ("post", "get", "put", "delete", "patch")
PROBLEM = "application/problem+json"
TITLES = {"feed": "Live feeds", "operations": "Regions, timers and tasks", "pos": "Points of sale"}
"""Module -> title of its section, unless it is the module's name."""
PROBLEMS: Mapping[int, str] = {
    400: "the body is not JSON, or a header is wrong",
    401: "the key is missing, unknown, revoked or past its time",
    403: "not for the role of the key; or a web page of another origin sent it: see `DABBAWALA_ALLOWED_ORIGINS`",
    404: "unknown id, or a thing of another party",
    408: "the body did not arrive within 10 s",
    409: "the state does not allow the event",
    413: "the body is too large",
    415: "the body is not `application/json` by its `Content-Type`",
    421: "the `Host` is none of the worker's: see `DABBAWALA_PUBLIC_URL`",
    422: "the body or a parameter is invalid; `errors` names each field",
    429: "more requests than the key's quota (`RateLimit-Policy`, `RateLimit`); repeat the request after `Retry-After`",
    500: "the event could not be applied; it is a dead letter. `detail` names the incident in the worker's log",
    503: "the partition is moving, Kafka does not answer, or the worker is busy; "
    "repeat the request after `Retry-After`",
}
"""Status of a problem -> meaning. `docs/http-api.md` has them as a table."""
ACCEPTED = "the broker has the event; the decision takes over `DABBAWALA_DECISION_S`; see `Location` for the result"
DESCRIPTION = (
    "Orders between food-ordering providers, restaurants, drivers and a payment provider, each step exactly once. Any "
    "worker answers any request. Errors are `application/problem+json` (RFC 9457). Two answers come before the API: "
    "400 as text to a request that is not HTTP, and 503 without a body if a worker has too many connections."
)
VARIABLES: Mapping[str, Any] = {
    "order": Annotated[OrderId, Meta(description="Id of the order.")],
    "driver": Annotated[PartyId, Meta(description="Id of the driver.")],
    "restaurant": Annotated[PartyId, Meta(description="Id of the restaurant.")],
    "region": Annotated[PartyId, Meta(description="Id of the region.")],
    "provider": Annotated[str, Meta(description="Name of the payment provider.")],
    "capability": Annotated[str, Meta(description="Proof that a worker gave out this address.")],
    "purpose": Annotated[
        str,
        Meta(
            pattern=rf"^(charge|prepare|refund/{patterns.CHARGE_REF})\Z",
            description="Part of the call's key after the order. Its slash may be written as it is, or as `%2F`.",
        ),
    ],
    "partition": Annotated[int, Meta(ge=0, description="Partition of the dead letter.")],
    "offset": Annotated[int, Meta(ge=0, description="Offset of the dead letter.")],
    "name": Annotated[str, Meta(description="Name of the table.")],
    "record": Annotated[str, Meta(description="Topic and type of the record.")],
    "key": Annotated[str, Meta(description="Id of an order, driver, region or restaurant, or name of a topic.")],
}
"""Variable of a path -> type."""
EXAMPLES: Mapping[str, str] = {
    "provider": "payments",
    "name": "orders",
    "record": "orders.Placed",
    "key": "my-shop:1001",
    "purpose": "charge",
}
"""Variable of a path -> example, unless the schema gives one."""
LOCATION = {"Location": {"description": "Address of the result.", "schema": {"type": "string"}}}
RETRY = {"Retry-After": {"description": "Seconds until a repeat may succeed.", "schema": {"type": "integer"}}}
CHALLENGE = {"WWW-Authenticate": {"description": "Form of a key.", "schema": {"type": "string"}}}
HEADERS: Mapping[int, Mapping[str, Any]] = {201: LOCATION, 202: LOCATION, 401: CHALLENGE, 429: RETRY, 503: RETRY}
SECURITY_SCHEMES = {
    "key": {"type": "http", "scheme": "bearer", "description": "A key, as `dabbawala keys new` prints it."},
    "password": {
        "type": "http",
        "scheme": "basic",
        "description": "A key as the password, with any name, for reading in a browser.",
    },
}


class Request(NamedTuple):
    """A method of a route, with all that is known about it."""

    path: str
    method: str
    operation: Operation
    rule: Rule
    section: str
    summary: str
    text: str
    """The docstring after the summary, without the answers."""
    answers: Mapping[int, str]
    """Status -> description in the docstring."""
    is_personal: bool

    @property
    def query(self) -> Mapping[str, Any]:
        """Parameters of the query."""
        return {**self.operation.query, **(REVEAL_QUERY if self.is_personal and self.method == "get" else {})}

    @property
    def variables(self) -> list[tuple[str, str]]:
        """Variables of the path, each with its choices, separated by bars; "" or a pattern if it has none."""
        return re.findall(r"\{(\w+):?([^}]*)\}", self.path)

    @property
    def problems(self) -> list[int]:
        """Statuses of the problems that may be the answer."""
        found = {status for status in self.answers if status not in self.operation.answers} | {403, 500}
        if self.path not in PROBES:
            found.add(421)
        if not self.rule.public:
            found |= {429, 503} | ({404} if self.rule.callback else {401})
        if self.variables:
            found.add(404)
        if self.method != "get":
            found |= {400, 408, 413, 415}
        if self.operation.body is not None or self.query:
            found.add(422)
        return sorted(found)


def document(routes: Mapping[str, type]) -> dict[str, Any]:
    """Return the document of these routes: path -> view. Raises `LookupError` for a method without a declaration."""
    requests = list(requests_of(routes))
    types = {id(kind): kind for request in requests for kind in _types(request)}
    schemas, components = schemas_of([*types.values(), ProblemDocument])
    components["ProblemDocument"]["properties"]["type"]["enum"] = [TYPES + kind for kind in KINDS]
    schema_of = dict(zip(types, schemas, strict=False))
    paths: dict[str, dict[str, Any]] = {}
    for request in requests:
        shown = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", request.path)
        paths.setdefault(shown, {})[request.method] = _operation(request, schema_of, components)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Dabbawala",
            "version": "1",
            "description": DESCRIPTION,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": DIALECT,
        "servers": [{"url": "/", "description": "Any worker."}],
        "tags": [{"name": name, "description": text} for name, text in _sections(routes).items()],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {str(status): _problem(status, PROBLEMS[status]) for status in PROBLEMS},
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def requests_of(routes: Mapping[str, type]) -> Iterator[Request]:
    """Yield every method of every route."""
    for path, view in routes.items():
        for method in METHODS:
            if method in vars(view):
                yield _request(path, view, method)


def section_of(view: type) -> str:
    """Return the title of a view's section."""
    name = view.__module__.rpartition(".")[2]
    return TITLES.get(name, name.replace("_", " ").capitalize())


def documentation(documented: object) -> str:
    """Return a docstring in Markdown."""
    text = inspect.getdoc(documented)
    assert text, f"{documented} has no docstring"
    return text.replace("``", "`")


def _request(path: str, view: type, method: str) -> Request:
    handler = vars(view)[method]
    text, *found = re.split(r"^- (\d{3}): ", documentation(handler), flags=re.MULTILINE)
    answers = {int(status): " ".join(meaning.split()) for status, meaning in zip(found[::2], found[1::2], strict=True)}
    summary, *rest = re.split(r"(?<=\.)\s+", text.strip(), maxsplit=1)
    declared, rule = operation_of(handler), RULES[path][method.upper()]
    is_personal = bool(getattr(view, "is_personal", False))
    return Request(path, method, declared, rule, section_of(view), summary, "".join(rest), answers, is_personal)


def _sections(routes: Mapping[str, type]) -> dict[str, str]:
    """Return section -> text."""
    return {section_of(view): documentation(inspect.getmodule(view)) for view in routes.values()}


def _types(request: Request) -> Iterator[Any]:
    """Yield the types that a request has schemas of."""
    declared = request.operation
    yield from (kind for kind in declared.answers.values() if kind is not None)
    yield from (kind for kind in (declared.body, declared.event) if kind is not None)
    yield from request.query.values()
    yield from declared.headers.values()
    yield from (VARIABLES[name] for name, choices in request.variables if "|" not in choices)


def _operation(request: Request, schema_of: Mapping[int, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    declared = request.operation
    made: dict[str, Any] = {
        "operationId": declared.name,
        "tags": [request.section],
        "summary": request.summary.rstrip("."),
        "description": f"{request.text}\n\n{_roles(request.rule)}".strip(),
        "security": _security(request),
        "parameters": list(_parameters(request, schema_of, components)),
    }
    if declared.body is not None:
        made["requestBody"] = _body(declared, schema_of, components)
    made["responses"] = {
        **{str(status): _answer(request, status, schema_of, components) for status in sorted(declared.answers)},
        **{str(status): _problem_of(request, status) for status in request.problems},
    }
    return made


def _security(request: Request) -> list[dict[str, list[str]]]:
    if request.rule.public or request.rule.callback:
        return []
    roles = sorted(role.value for role in request.rule.roles)
    return [{"key": roles}, *([{"password": roles}] if request.method == "get" else [])]


def _roles(rule: Rule) -> str:
    """Return a sentence about the roles that may send the request."""
    if rule.public:
        return "Needs no key."
    if rule.callback:
        return "Needs no key: the address proves itself."
    everything = OPERATORS.roles[Role.OPERATOR]
    names = [f"{role}{'' if reach is everything else ' (its own)'}" for role, reach in sorted(rule.roles.items())]
    return f"Roles: {', '.join(names)}."


def _parameters(
    request: Request, schema_of: Mapping[int, Any], components: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    for name, choices in request.variables:
        schema = {"enum": choices.split("|")} if "|" in choices else dict(schema_of[id(VARIABLES[name])])
        if name in EXAMPLES:
            schema["examples"] = [EXAMPLES[name]]
        yield _parameter(name, "path", schema, components)
    for place, types in (("query", request.query), ("header", request.operation.headers)):
        for name, kind in types.items():
            yield _parameter(name, place, dict(schema_of[id(kind)]), components)


def _parameter(name: str, place: str, schema: dict[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    meaning = schema.pop("description", "")
    described = {"description": meaning} if meaning else {}
    required = {"required": True} if place == "path" else {}
    example = {} if "examples" in schema or place != "path" else {"example": example_of(schema, components, name)}
    return {"name": name, "in": place, **described, **required, "schema": schema, **example}


def _body(declared: Operation, schema_of: Mapping[int, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    schema = schema_of[id(declared.body)]
    example = example_of(schema, components) if declared.example is None else declared.example
    if declared.optional:
        whole = components[schema["$ref"].rpartition("/")[2]]
        schema = {**whole, "required": [name for name in whole["required"] if name not in declared.optional]}
    found = components[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    is_required = bool(found.get("required") or "anyOf" in found)
    return {"required": is_required, "content": {JSON: {"schema": schema, "example": example}}}


def _answer(
    request: Request, status: int, schema_of: Mapping[int, Any], components: Mapping[str, Any]
) -> dict[str, Any]:
    declared = request.operation
    kind = declared.answers[status]
    meaning = request.answers.get(status) or (ACCEPTED if status == 202 else "the answer")
    made: dict[str, Any] = {"description": _sentence(meaning)}
    if status in HEADERS:
        made["headers"] = dict(HEADERS[status])
    if kind is None:
        return made
    made["content"] = {
        media: _content(schema_of[id(kind)], components) if media.endswith("json") else {"schema": {"type": "string"}}
        for media in declared.media
    }
    if declared.event is not None:
        made["x-event-data"] = schema_of[id(declared.event)]
    return made


def _content(schema: Mapping[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    return {"schema": schema, "example": example_of(schema, components)}


def _problem_of(request: Request, status: int) -> dict[str, Any]:
    """Return a problem of a request: the common one, unless the docstring describes it."""
    own, common = request.answers.get(status), PROBLEMS.get(status, "")
    if own is None:
        return {"$ref": f"#/components/responses/{status}"}
    return _problem(status, f"{common}; {own}" if own.startswith("also ") else own)


def _problem(status: int, meaning: str) -> dict[str, Any]:
    headers = {"headers": dict(HEADERS[status])} if status in HEADERS else {}
    schema = {"$ref": COMPONENTS.format(name="ProblemDocument")}
    return {"description": _sentence(meaning), **headers, "content": {PROBLEM: {"schema": schema}}}


def _sentence(meaning: str) -> str:
    text = meaning[:1].upper() + meaning[1:]
    return text if text.endswith((".", ":")) else f"{text}."
