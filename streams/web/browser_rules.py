"""Rules that keep web pages of strangers out: a browser lets any page send requests to any address.

| status | a request is refused if |
|---|---|
| 421 | its `Host` is none of the worker's: a page may give its own name the worker's address (DNS rebinding) |
| 403 | a page of another origin sends it, and `DABBAWALA_ALLOWED_ORIGINS` does not list that origin |
| 415 | it has a body that is not `application/json`: browsers send other types without asking first |

A page of an allowed origin may read the answers (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from ipaddress import ip_address
from typing import NamedTuple

from aiohttp import web
from aiohttp.typedefs import Middleware
from yarl import URL

from streams.web.problems import Problem
from topics.headers import IDEMPOTENCY_KEY

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths for any host: orchestrators, load balancers and Prometheus reach a worker at its IP address."""
OWN_PAGES = frozenset({"same-origin", "none"})
"""Values of `Sec-Fetch-Site` for pages of the worker itself, and for an address that a person typed."""
HOST = re.compile(r"(?P<name>[\w.-]+|\[[\da-fA-F:.]+\])(?::(?P<port>\d{1,5}))?", re.ASCII)
JSON = "application/json"
PREFLIGHT_S = 600
"""Time for which a browser may reuse the answer to a preflight request, in seconds."""
HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""Headers of every answer, unless a view sets them."""


class Host(NamedTuple):
    """Host name or IP address in lower case, and port; None without one."""

    name: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> "Host | None":
        """Return the host in a `Host` header; None if the text is none."""
        parts = HOST.fullmatch(text)
        if parts is None:
            return None
        return cls(parts["name"].strip("[]").rstrip(".").lower(), int(parts["port"]) if parts["port"] else None)

    @property
    def is_loopback(self) -> bool:
        """Return whether the host always means the machine of the client."""
        if self.name == "localhost":
            return True
        try:
            return ip_address(self.name).is_loopback
        except ValueError:
            return False


class BrowserRules:
    """Rules of one worker, with the names by which it is reached and the origins that may call it."""

    def __init__(self, urls: Iterable[str], port: int, allowed_origins: Iterable[str]) -> None:
        """``urls`` are addresses of the worker, ``port`` is its own one, and origins are like ``https://a.example``."""
        known = [URL(url) for url in urls]
        self._names = {url.host for url in known if url.host}
        self._ports = {port, *(url.port for url in known if Host(url.host or "", url.port).is_loopback)}
        self._origins = frozenset(allowed_origins)

    def install(self, application: web.Application) -> None:
        """Apply the rules to an application, inside its other middlewares, and its headers to every answer."""
        application.middlewares.append(self.middleware())
        application.on_response_prepare.append(self.add_headers)

    def middleware(self) -> Middleware:
        """Return the middleware, which raises a problem if a rule refuses the request."""

        @web.middleware
        async def apply(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.check_host(request)
            self.check_origin(request)
            if self._is_preflight(request):
                return web.Response(status=HTTPStatus.NO_CONTENT)
            check_content_type(request)
            return await handler(request)

        return apply

    def check_host(self, request: web.Request) -> None:
        """Raise a 421 problem unless the request is for this worker."""
        text = request.headers.get("Host", "")
        host = Host.parse(text)
        if request.path in PROBES or (host is not None and self._serves(host)):
            return
        raise Problem(
            HTTPStatus.MISDIRECTED_REQUEST,
            "misdirected",
            f"this worker does not serve the host {text!r}: use the address of its banner, or name the host in "
            "DABBAWALA_PUBLIC_URL",
        )

    def check_origin(self, request: web.Request) -> None:
        """Raise a 403 problem if a page of an origin that is not allowed sends the request."""
        origin = request.headers.get("Origin")
        if origin is None:
            is_refused = request.headers.get("Sec-Fetch-Site", "none") not in OWN_PAGES and not _is_navigation(request)
        else:
            is_refused = origin not in self._origins and not _is_own(origin, request)
        if is_refused:
            raise Problem(
                HTTPStatus.FORBIDDEN,
                "cross-site",
                f"a page of {origin or 'another site'} may not call this worker: DABBAWALA_ALLOWED_ORIGINS lists the "
                "origins that may",
            )

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers for browsers before an answer starts."""
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        origin = request.headers.get("Origin", "")
        if origin not in self._origins:
            return
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = "Location, Retry-After, RateLimit, RateLimit-Policy"
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        response.headers["Vary"] = "Origin"
        if self._is_preflight(request):
            response.headers["Access-Control-Allow-Methods"] = "GET, POST"
            response.headers["Access-Control-Allow-Headers"] = (
                f"Authorization, Content-Type, {IDEMPOTENCY_KEY}, Last-Event-ID, traceparent"
            )
            response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_S)

    def _serves(self, host: Host) -> bool:
        return (host.port or 80) in self._ports if host.is_loopback else host.name in self._names

    def _is_preflight(self, request: web.Request) -> bool:
        return (
            request.method == "OPTIONS"
            and "Access-Control-Request-Method" in request.headers
            and request.headers.get("Origin") in self._origins
        )


def check_content_type(request: web.Request) -> None:
    """Raise a 415 problem if the request has a body that is not JSON by its `Content-Type`."""
    if request.body_exists and request.content_type != JSON:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "not-json",
            f"a body must be {JSON}: send the header Content-Type: {JSON} (with curl: --json BODY instead of -d BODY)",
        )


def _is_own(origin: str, request: web.Request) -> bool:
    """Return whether a page of this worker sends the request. A proxy may have ended its TLS."""
    scheme, _, authority = origin.partition("://")
    return scheme in ("http", "https") and authority.lower() == request.headers.get("Host", "").lower()


def _is_navigation(request: web.Request) -> bool:
    """Return whether a person followed a link to the worker: the page with the link cannot read the answer."""
    mode, destination = (request.headers.get(f"Sec-Fetch-{name}") for name in ("Mode", "Dest"))
    return request.method == "GET" and mode == "navigate" and destination == "document"
