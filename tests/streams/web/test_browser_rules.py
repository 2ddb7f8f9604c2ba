"""Rules for browsers on every route: content types, hosts, origins, and the headers of answers."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from streams.settings import Settings, WrongSetting
from streams.views import ROUTES
from streams.views.api_view import ApiView
from streams.web.browser_rules import HEADERS, PROBES, Host
from tests.support.plain_http import JSON
from tests.support.served import served

PUBLIC, SHOP, STRANGER = "https://orders.example", "https://shop.example", "https://evil.example"
SETTINGS = {"DABBAWALA_PUBLIC_URL": PUBLIC, "DABBAWALA_ALLOWED_ORIGINS": SHOP}
EXAMPLES = {"command": "retry", "event": "finished", "partition": "0", "offset": "1"}


def requests() -> Iterator[tuple[str, str]]:
    """Yield each method and path of the API, with values in place of the path's variables."""
    for pattern, view in ROUTES.items():
        path = re.sub(r"\{(\w+)(?::([^}]*))?\}", lambda part: EXAMPLES.get(part[1], "x"), pattern)
        if "dead-letters" in path:
            path = path.replace("retry", "replay")
        for method in ("get", "post"):
            if method in view.__dict__:
                yield method.upper(), path


REQUESTS = sorted(requests())
BODIES = [each for each in REQUESTS if each[0] == "POST"]


@pytest.fixture
async def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a worker whose views all answer 200."""

    async def dispatch(_view: ApiView, _request: Any) -> web.Response:
        return web.Response(text="served")

    monkeypatch.setattr(ApiView, "dispatch", dispatch)
    async with served(tmp_path, SETTINGS, url="http://worker-1:6066") as client:
        yield client


def refusal(answer: httpx.Response, status: int) -> str:
    """Return the detail of a problem with this status."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    return str(answer.json()["detail"])


def test_every_route_is_tried() -> None:
    assert len(REQUESTS) >= 33
    assert len(BODIES) > 10
    assert not [path for _, path in REQUESTS if "{" in path]


async def test_a_plain_client_is_served(worker: httpx.AsyncClient) -> None:
    for method, path in REQUESTS:
        body = {"content": b"{}", "headers": JSON} if method == "POST" else {}
        answer = await worker.request(method, path, **body)  # type: ignore[arg-type]
        assert (answer.status_code, answer.text) == (200, "served"), path
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS, path


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json"]
)
async def test_a_body_that_is_not_json_is_refused_with_advice(worker: httpx.AsyncClient, kind: str) -> None:
    for _, path in BODIES:
        answer = await worker.post(path, content=b"{}", headers={"Content-Type": kind} if kind else {})
        assert "with curl: --json BODY instead of -d BODY" in refusal(answer, 415), path


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "application/x-www-form-urlencoded", 200),
        (b"{}", "application/json; charset=utf-8", 200),
        (b"{}", "Application/JSON", 200),
        (b"{}", "application/json-patch+json", 415),
    ],
)
async def test_an_empty_body_needs_no_type(worker: httpx.AsyncClient, content: bytes, kind: str, status: int) -> None:
    answer = await worker.post("/v1/orders", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status


async def test_a_body_in_chunks_is_a_body(worker: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"{}"

    refusal(await worker.post("/v1/orders", content=chunks()), 415)
    assert (await worker.post("/v1/orders", content=chunks(), headers=JSON)).status_code == 200


async def test_a_foreign_host_is_misdirected(worker: httpx.AsyncClient) -> None:
    for method, path in REQUESTS:
        if path not in PROBES:
            answer = await worker.request(method, path, headers={"Host": f"evil.example:{worker.base_url.port}"})
            assert "evil.example" in refusal(answer, 421), path


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST:{port}", 200),
        ("127.1.2.3:{port}", 200),
        ("[::1]:{port}", 200),
        ("worker-1:6066", 200),
        ("worker-1", 200),
        ("orders.example", 200),
        ("orders.example:8443", 200),
        ("orders.example.", 200),
        ("localhost", 421),
        ("localhost:1", 421),
        ("127.0.0.1:1", 421),
        ("localhost.evil.example:{port}", 421),
        ("10.0.0.1:{port}", 421),
        ("0.0.0.0:{port}", 421),
        ("evil.example@127.0.0.1:{port}", 421),
        ("127.0.0.1:{port}/x", 421),
        ("127.0.0.1:{port}?x", 421),
        ("127.0.0.1:x", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
async def test_hosts(worker: httpx.AsyncClient, host: str, status: int) -> None:
    answer = await worker.get("/v1/tasks", headers={"Host": host.format(port=worker.base_url.port)})
    assert answer.status_code == status


@pytest.mark.parametrize("path", sorted(PROBES))
async def test_a_probe_may_use_any_host(worker: httpx.AsyncClient, path: str) -> None:
    assert (await worker.get(path, headers={"Host": "10.0.0.1:6066"})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": STRANGER},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": f"{SHOP}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Origin": STRANGER, "Sec-Fetch-Site": "same-origin"},
    ],
)
async def test_a_page_of_a_stranger_is_refused(worker: httpx.AsyncClient, headers: dict[str, str]) -> None:
    for method, path in REQUESTS:
        answer = await worker.request(method, path, headers=headers)
        assert "DABBAWALA_ALLOWED_ORIGINS" in refusal(answer, 403), path
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "{here}"},
        {"Origin": "{here}", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {"Origin": PUBLIC, "Host": "orders.example"},
    ],
)
async def test_the_own_pages_and_a_followed_link_are_served(worker: httpx.AsyncClient, headers: dict[str, str]) -> None:
    here = str(worker.base_url).rstrip("/")
    given = {name: value.format(here=here) for name, value in headers.items()}
    assert (await worker.get("/table/", headers=given)).status_code == 200


async def test_a_link_cannot_carry_a_command(worker: httpx.AsyncClient) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    refusal(await worker.post("/v1/dead-letters/0/1/replay", headers=headers), 403)


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/events"), ("POST", "/v1/orders")])
async def test_an_allowed_origin_asks_first_and_reads_the_answer(
    worker: httpx.AsyncClient, method: str, path: str
) -> None:
    asked = {"Origin": SHOP, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": "content-type"}
    preflight = await worker.options(path, headers=asked)
    assert preflight.status_code == 204
    assert method in preflight.headers["access-control-allow-methods"]
    assert "Content-Type" in preflight.headers["access-control-allow-headers"]
    answer = await worker.request(method, path, headers={"Origin": SHOP, "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    for each in (preflight, answer):
        assert each.headers["access-control-allow-origin"] == SHOP
        assert each.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in each.headers


async def test_a_preflight_of_a_stranger_is_refused(worker: httpx.AsyncClient) -> None:
    headers = {"Origin": STRANGER, "Access-Control-Request-Method": "POST"}
    refusal(await worker.options("/v1/orders", headers=headers), 403)


async def test_errors_and_pages_have_the_headers_too(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        missing = await client.get("/nowhere")
        page = await client.get("/table/", headers={"Accept": "text/html"})
    assert {name: missing.headers[name] for name in HEADERS} == HEADERS
    assert page.headers["cache-control"] == "no-store"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("value", ["*", "null", "shop.example", "https://shop.example/path", "https://a b", "ftp://a"])
def test_wrong_origin_is_refused_by_its_setting(value: str) -> None:
    with pytest.raises(WrongSetting, match=r"^DABBAWALA_ALLOWED_ORIGINS="):
        Settings.from_environment({"DABBAWALA_ALLOWED_ORIGINS": value})


def test_origins_are_read_as_browsers_send_them() -> None:
    settings = Settings.from_environment({"DABBAWALA_ALLOWED_ORIGINS": "https://Shop.example/, http://[::1]:3000"})
    assert settings.allowed_origins == ("https://shop.example", "http://[::1]:3000")
    assert Settings.from_environment({"DABBAWALA_ALLOWED_ORIGINS": " "}).allowed_origins == ()


@pytest.mark.parametrize(("text", "host"), [("A.b:1", Host("a.b", 1)), ("[::1]", Host("::1", None)), ("a b", None)])
def test_parsing_of_hosts(text: str, host: Host | None) -> None:
    assert Host.parse(text) == host
