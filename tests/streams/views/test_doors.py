"""The doors: every route with every role, for the sender's own things, for those of others, and without a key."""

import re
from base64 import b64encode
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.test_utils import make_mocked_request

from streams.access.keys import Identity, Role, add_key
from streams.access.rules import RULES, Rule, callback_subject
from streams.access.tokens import Tokens, read_secret
from streams.build import Surroundings
from streams.services import Services
from streams.views import ROUTES, rules_of
from streams.views.api_view import ApiView
from streams.web.doorkeeper import QUOTA, SENDER, tell_quota
from streams.web.problems import Problem
from tests.support.services import unconnected_services, view_of

OWN = {"provider": "shop", "restaurant": "tiffin", "driver": "d1", "payments": "payments"}
"""Role -> the party of its key."""
PATHS = {
    "own": {"order": "shop:1", "restaurant": "tiffin", "driver": "d1", "provider": "payments"},
    "foreign": {"order": "other:1", "restaurant": "other", "driver": "d2", "provider": "other"},
    "similar": {"order": "shop-2:1", "restaurant": "tiffin2", "driver": "d1x", "provider": "payments2"},
    "odd": {"order": "1", "restaurant": "", "driver": "*", "provider": "pay*"},
}
"""Owner of the thing that a path names -> the values of the path's variables."""
OTHERS = {
    "purpose": "charge",
    "command": "retry",
    "event": "accepted",
    "partition": "0",
    "offset": "0",
    "name": "orders",
    "key": "k",
    "record": "orders.Placed",
    "region": "r",
    "capability": "c",
}
METHODS = [(path, method) for path, rules in RULES.items() for method in rules]
PASSED = 299

ORDER = {Role.PROVIDER: "own", Role.OPERATOR: "any"}
DRIVER = {Role.DRIVER: "own", Role.OPERATOR: "any"}
ALL = dict.fromkeys(Role, "any")
LISTS = {Role.PROVIDER: "any", Role.OPERATOR: "any"}
TICKET = {Role.RESTAURANT: "own", Role.OPERATOR: "any"}
PAYMENT = {Role.PAYMENTS: "own", Role.OPERATOR: "any"}
EXPECTED: dict[str, dict[Role, str]] = {
    "/v1/orders": LISTS,
    "/v1/orders/{order}": ORDER,
    "/v1/orders/{order}/events": ORDER,
    "/v1/events": LISTS,
    "/v1/payments/{provider}/events": PAYMENT,
    "/v1/pos/{restaurant}/tickets/{order}/{event:accepted|rejected|finished}": TICKET,
    "/v1/drivers/{driver}": DRIVER,
    "/v1/drivers/{driver}/available": DRIVER,
    "/v1/drivers/{driver}/unavailable": DRIVER,
    "/v1/drivers/{driver}/pickup": DRIVER,
    "/v1/drivers/{driver}/delivered": DRIVER,
    "/v1/drivers/{driver}/location": DRIVER,
    "/v1/drivers/{driver}/delivery": DRIVER,
    "/v1/restaurants": ALL,
    "/v1/restaurants/{restaurant}": ALL,
    "/v1/tasks": {Role.MONITOR: "any", Role.OPERATOR: "any"},
    "/metrics": {Role.MONITOR: "any", Role.OPERATOR: "any"},
    **dict.fromkeys(("/docs/", "/docs/events", "/openapi.json", "/asyncapi.json", "/schemas/{record}.json"), ALL),
}
"""Route -> who may use it; every other route is the operators', but for callbacks and the public ones."""


class Doors:
    """A worker with a key of each role, whose views answer every admitted request."""

    def __init__(self, services: Services, keys: dict[Role, str], tokens: Tokens) -> None:
        self.services = services
        self.keys = keys
        self.tokens = tokens

    async def ask(
        self, path: str, method: str, whose: str, headers: dict[str, str], **variables: str
    ) -> tuple[int, web.Request]:
        """Send a request; return the status and the request."""
        given = OTHERS | PATHS[whose] | variables
        names = re.findall(r"\{(\w+)", path)
        request = make_mocked_request(
            method, path, headers, match_info={name: given[name] for name in names}, payload=EMPTY_PAYLOAD
        )
        view = view_of(self.services, ROUTES[path], rules=rules_of(path, ROUTES[path]))

        async def admitted(_request: web.Request, **_: str) -> web.Response:
            return web.Response(status=PASSED)

        handlers: dict[str, Any] = dict.fromkeys(view.methods, admitted)
        view.methods = handlers
        try:
            answer: web.Response = await view.dispatch(request)
        except Problem as problem:
            answer = problem.response()
        return answer.status, request

    def key(self, role: Role) -> dict[str, str]:
        """Return the headers of a sender of a role."""
        return {"Authorization": f"Bearer {self.keys[role]}"}


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Doors:
    directory: Path = tmp_path_factory.mktemp("doors")
    keys = {role: add_key(directory / "keys.json", role, OWN.get(role, "*"), role) for role in Role}
    (directory / "secret").write_text("s" * 32)
    each_after_a_second = Surroundings(clock=partial(next, count()))  # so that no quota is ever used up
    services = unconnected_services(each_after_a_second, DABBAWALA_DIR=str(directory))
    return Doors(services, keys, Tokens(lambda: read_secret(directory / "secret")))


def is_callback(path: str) -> bool:
    return "{capability}" in path


def is_public(path: str) -> bool:
    return path in ("/livez", "/readyz")


def reach(path: str, role: Role) -> str:
    """Return `any`, `own` or `none`."""
    return EXPECTED.get(path, {Role.OPERATOR: "any"}).get(role, "none")


@pytest.mark.parametrize("whose", PATHS)
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("path", "method"), [m for m in METHODS if not is_callback(m[0]) and not is_public(m[0])])
async def test_each_role_reaches_its_routes_and_its_own_things(
    doors: Doors, path: str, method: str, role: Role, whose: str
) -> None:
    status, _ = await doors.ask(path, method, whose, doors.key(role))
    names_a_thing = any(f"{{{name}" in path for name in ("order}", "restaurant}", "driver}", "provider}"))
    allowed = {"any": PASSED, "none": 403, "own": PASSED if whose == "own" or not names_a_thing else 404}
    assert status == allowed[reach(path, role)]


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer dbw_operator_x", "Basic b3A6b3A=", "dbw_operator_x"]
)
@pytest.mark.parametrize(("path", "method"), [m for m in METHODS if not is_callback(m[0])])
async def test_a_request_without_a_valid_key_is_refused(doors: Doors, path: str, method: str, header: str) -> None:
    status, _ = await doors.ask(path, method, "own", {"Authorization": header} if header else {})
    assert status == (PASSED if is_public(path) else 401)


async def test_a_browser_may_read_with_a_key_as_the_password(doors: Doors) -> None:
    def basic(credentials: str) -> dict[str, str]:
        return {"Authorization": f"Basic {b64encode(credentials.encode()).decode()}", "Accept": "text/html"}

    key = doors.keys[Role.OPERATOR]
    assert (await doors.ask("/table/", "GET", "own", basic(f"ana:{key}")))[0] == PASSED
    for wrong in (f"{key}:", key, "ana:", "", ":::"):
        assert (await doors.ask("/table/", "GET", "own", basic(wrong)))[0] == 401
    assert (await doors.ask("/table/", "GET", "own", {"Authorization": "Basic \u00e9=="}))[0] == 401
    assert (await doors.ask("/v1/orders", "POST", "own", basic(f"ana:{key}")))[0] == 401, "reading alone"


@pytest.mark.parametrize("whose", PATHS)
@pytest.mark.parametrize("path", [path for path in RULES if is_callback(path)])
async def test_a_callback_needs_the_capability_of_its_order_and_no_key(doors: Doors, path: str, whose: str) -> None:
    kind, party = ("pos", "restaurant") if "/pos/" in path else ("payments", "provider")
    own = PATHS["own"]
    capability = doors.tokens.capability(callback_subject(kind, own[party], own["order"]))
    status, _ = await doors.ask(path, "POST", whose, {}, capability=capability)
    assert status == (PASSED if whose == "own" else 404)
    status, _ = await doors.ask(path, "POST", "own", doors.key(Role.OPERATOR), capability="x")
    assert status == 404, "a key does not replace the capability"


@pytest.mark.parametrize("token", ["1", "", "v1,0,operator,*,x,y"])
@pytest.mark.parametrize(("path", "method"), [m for m in METHODS if not is_public(m[0])])
async def test_a_forged_token_of_a_worker_is_refused(doors: Doors, path: str, method: str, token: str) -> None:
    headers = {**doors.key(Role.OPERATOR), "Dabbawala-Forwarded": token}
    assert (await doors.ask(path, method, "own", headers))[0] == 401


@pytest.mark.parametrize("role", Role)
async def test_a_forwarded_request_has_the_rights_of_its_sender(doors: Doors, role: Role) -> None:
    for path, method in METHODS:
        if is_callback(path) or is_public(path):
            continue
        for whose in PATHS:
            status, request = await doors.ask(path, method, whose, doors.key(role))
            if status != PASSED:
                continue
            token = doors.services.doorkeeper.token_for(request, b"")
            again, _ = await doors.ask(path, method, whose, {"Dabbawala-Forwarded": token})
            assert again == PASSED, (path, method, whose)


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("/v1/orders?cursor=a:1/x", "/v1/orders?cursor=a%3A1%2Fx"),
        ("/v1/orders?cursor=%C3%A9+b&limit=2", "/v1/orders?cursor=\u00e9%20b&limit=2"),
        ("/v1/orders/a%3A1", "/v1/orders/a:1"),
    ],
)
async def test_a_token_is_for_an_address_in_any_writing(doors: Doors, sent: str, arrives: str) -> None:
    first = make_mocked_request("GET", sent, payload=EMPTY_PAYLOAD)
    first[SENDER] = Identity("ana", Role.OPERATOR)
    headers = {"Dabbawala-Forwarded": doors.services.doorkeeper.token_for(first, b"")}
    rule = RULES["/v1/calls"]["GET"]
    for address, is_same in ((arrives, True), (f"{arrives}x", False)):
        second = make_mocked_request("GET", address, headers, payload=EMPTY_PAYLOAD)
        if is_same:
            await doors.services.doorkeeper.admit(second, rule, {})
        else:
            with pytest.raises(Problem, match="same secret"):
                await doors.services.doorkeeper.admit(second, rule, {})


class Stopped:
    """A worker whose clock stands still, so that every quota is used up."""

    def __init__(self, directory: Path) -> None:
        self.key = add_key(directory / "keys.json", Role.PROVIDER, "shop", "shop-1", rate=2.0)
        (directory / "secret").write_text("s" * 32)
        self.services = unconnected_services(Surroundings(clock=lambda: 1.0), DABBAWALA_DIR=str(directory))

    async def ask(self, **headers: str) -> web.Request:
        """Send a request to the doorkeeper. Raises a problem."""
        request = make_mocked_request("GET", "/v1/orders", headers, payload=EMPTY_PAYLOAD)
        await self.services.doorkeeper.admit(request, RULES["/v1/orders"]["GET"], {})
        return request


async def test_a_key_beyond_its_quota_is_refused(tmp_path: Path) -> None:
    worker = Stopped(tmp_path)
    key = {"Authorization": f"Bearer {worker.key}"}
    requests = [await worker.ask(**key) for _ in range(4)]
    assert [request[QUOTA].remaining for request in requests] == [3, 2, 1, 0]
    with pytest.raises(Problem, match="the key shop-1: more than 2 requests a second"):
        await worker.ask(**key)
    token = worker.services.doorkeeper.token_for(requests[0], b"")
    forwarded = await worker.ask(**{"Dabbawala-Forwarded": token})
    assert QUOTA not in forwarded, "the first worker has counted it"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x"}, {"Dabbawala-Forwarded": "x"}])
async def test_strangers_have_a_quota_for_each_address(tmp_path: Path, headers: dict[str, str]) -> None:
    worker = Stopped(tmp_path)
    for _ in range(40):
        with pytest.raises(Problem) as refused:
            await worker.ask(**headers)
        assert refused.value.status == 401
    with pytest.raises(Problem) as refused:
        await worker.ask(**headers)
    assert refused.value.status == 429
    await worker.ask(Authorization=f"Bearer {worker.key}")


async def test_an_answer_tells_the_quota(tmp_path: Path) -> None:
    worker = Stopped(tmp_path)
    request, response = await worker.ask(Authorization=f"Bearer {worker.key}"), web.Response()
    await tell_quota(request, response)
    assert response.headers["RateLimit-Policy"] == '"key";q=4;w=2'
    assert response.headers["RateLimit"] == '"key";r=3;t=1'


def test_a_route_without_a_rule_stops_the_start() -> None:
    class Odd(ApiView):
        async def get(self, request: web.Request) -> web.Response:
            raise NotImplementedError

        async def delete(self, request: web.Request) -> web.Response:
            raise NotImplementedError

    with pytest.raises(LookupError, match="/v1/odd"):
        rules_of("/v1/odd", Odd)
    with pytest.raises(LookupError, match="DELETE"):
        rules_of("/v1/tasks", Odd)


def test_every_rule_is_of_a_route() -> None:
    assert list(RULES) == list(ROUTES)


def test_only_the_probes_are_public() -> None:
    public: list[Any] = [path for path, rules in RULES.items() for rule in rules.values() if _is_public_rule(rule)]
    assert public == ["/livez", "/readyz"]


def _is_public_rule(rule: Rule) -> bool:
    return rule.public
