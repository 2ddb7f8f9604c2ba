"""The doorkeeper of the HTTP API: it identifies the sender of a request, and applies the rule of the route."""

from base64 import b64decode
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urlencode

from aiohttp import web
from msgspec.structs import replace

from streams.access.keys import Identity
from streams.access.rules import Rule
from streams.access.tokens import Tokens
from streams.web.problems import Problem
from streams.web.rates import Quota, Rates
from streams.web.requests import read_bytes

FORWARDED = "Dabbawala-Forwarded"
"""Header of a request that another worker forwarded: its token."""
SENDER = web.RequestKey("sender", Identity)
"""The place in a request for its sender."""
QUOTA = web.RequestKey("quota", Quota)
"""The place in a request for the sender's quota."""
PAGE_CHALLENGE = 'Basic realm="Dabbawala: any name, and a key as the password", charset="UTF-8"'
"""Challenge to a browser, which then asks for a name and a password."""
NO_KEY = "send the header `Authorization: Bearer KEY`; `dabbawala keys new` makes a key"
WRONG_KEY = "the key in the header `Authorization` is unknown, revoked or past its time"


class Keys(Protocol):
    """The keys that are valid."""

    def find(self, key: str) -> Identity | None:
        """Return the holder of a key; None if the key is not valid."""


class Doorkeeper:
    """Access control of one worker."""

    def __init__(self, keys: Keys, tokens: Tokens, rates: Rates, now_ms: Callable[[], int]) -> None:
        self._keys = keys
        self._tokens = tokens
        self._rates = rates
        self._now_ms = now_ms

    async def admit(self, request: web.Request, rule: Rule, path: Mapping[str, str]) -> None:
        """Note the sender of a request and its quota in the request, if the rule allows the request.

        Raises a 401 problem for a request without a valid key, 429 for more requests than the sender's quota allows,
        403 if the sender's role may not send this one, and 404 if the path names a thing of another party.
        """
        if rule.public:
            return
        try:
            sender = await self._identify(request, rule, path)
        except Problem:
            self._rates.take_unknown(request.remote or "")
            raise
        if not is_forwarded(request):  # the first worker has counted it
            request[QUOTA] = self._rates.take(sender)
        if not rule.allows_role(sender):
            roles = " or ".join(sorted(rule.roles))
            raise Problem(403, "not-your-role", f"this needs a key of the role {roles}; yours has {sender.role}")
        if not rule.allows_thing(sender, path):
            raise Problem(404, "unknown", "there is no such thing here, or it is not yours")
        request[SENDER] = sender if is_forwarded(request) else replace(sender, address=request.remote or "")

    def token_for(self, request: web.Request, body: bytes) -> str:
        """Return the token with which a request is forwarded to another worker."""
        return self._tokens.of_forwarded(sender_of(request), request.method, _target(request), body, self._now_ms())

    async def _identify(self, request: web.Request, rule: Rule, path: Mapping[str, str]) -> Identity:
        if (token := request.headers.get(FORWARDED)) is not None:
            return self._forwarded(token, request, await read_bytes(request))
        if rule.callback is not None:
            if not self._tokens.is_capability(path["capability"], rule.callback.subject(path)):
                raise Problem(404, "unknown", "this is not the address of a callback: use it as the request gave it")
            return rule.callback.sender(path)
        key = _key_in(request)
        if key is None:
            raise _unauthorized(NO_KEY, request)
        found = self._keys.find(key)
        if found is None:
            raise _unauthorized(WRONG_KEY, request)
        return found

    def _forwarded(self, token: str, request: web.Request, body: bytes) -> Identity:
        sender = self._tokens.read_forwarded(token, request.method, _target(request), body, self._now_ms())
        if sender is None:
            detail = "the token of another worker is not valid: do all workers have the same secret?"
            raise _unauthorized(detail, request)
        return sender


def _target(request: web.Request) -> str:
    """Return path and query, decoded and encoded again: a client may write the same address in another way."""
    return f"{request.path}?{urlencode(list(request.query.items()), errors='surrogatepass')}"


async def tell_quota(request: web.Request, response: web.StreamResponse) -> None:
    """Add the sender's quota to the headers of an answer."""
    if (quota := request.get(QUOTA)) is not None:
        response.headers.update(quota.headers)


def sender_of(request: web.Request) -> Identity:
    """Return the sender of an admitted request."""
    return request[SENDER]


def is_forwarded(request: web.Request) -> bool:
    """Return whether another worker forwarded the request. The doorkeeper has verified its token."""
    return FORWARDED in request.headers


def _key_in(request: web.Request) -> str | None:
    """Return the key in the header `Authorization`; None without one.

    A person who looks at a table in a browser gives the key as a password (RFC 7617). Browsers add it to later requests
    by themselves, so it counts for reading alone.
    """
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            return credentials.strip() or None
        case "basic" if request.method in ("GET", "HEAD"):
            try:
                return b64decode(credentials, validate=True).decode().partition(":")[2] or None
            except ValueError:
                return None
    return None


def _unauthorized(detail: str, request: web.Request) -> Problem:
    is_page = "text/html" in request.headers.get("Accept", "")
    challenge = PAGE_CHALLENGE if is_page else "Bearer"
    return Problem(HTTPStatus.UNAUTHORIZED, "no-key", detail, headers={"WWW-Authenticate": challenge})
