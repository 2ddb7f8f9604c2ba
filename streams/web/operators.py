"""Operators' requests, for the audit: what an action is, and the readings that reveal personal data.

Views mask personal data. An operator sees it with `?reveal=true&reason=TEXT`, and the reading is recorded.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from streams.access.keys import Role
from streams.web.doorkeeper import sender_of
from streams.web.problems import FieldError, Problem
from topics.audit import FAILED, MAX_TARGET_LENGTH, READ, OperatorActed
from topics.patterns import ADVICE, LINE
from topics.records import Reader, instant
from topics.text import MAX_TEXT_LENGTH, Text, plain

NO_REASON = "say why you need personal data, with ?reason=TEXT (--reason TEXT): the reading is recorded with it"
THINGS = ("order", "driver", "region", "restaurant", "provider")
"""Variables of paths that name one thing."""

REVEAL_QUERY: Mapping[str, Any] = MappingProxyType(
    {
        "reveal": Annotated[bool, Meta(description="Show personal data to an operator, who gives a `reason`.")],
        "reason": Annotated[Text, Meta(description="Reason of the reading, for the audit.")],
    }
)
"""Types of the parameters of a view that shows personal data."""


class OperatorNote(msgspec.Struct, frozen=True, kw_only=True):
    """Body of an operator's command: the reason, for the journal and the audit. The name is that of the key."""

    reason: Text = ""


OPERATOR_NOTE: Reader[OperatorNote] = Reader(OperatorNote)


def action_of(request: web.Request, new_id: Callable[[], str], thing: str, reason: str = "") -> OperatorActed | None:
    """Return the action that a request stands for; None if its sender is no operator."""
    sender = sender_of(request)
    if sender.role is not Role.OPERATOR:
        return None
    return OperatorActed(
        id=new_id(),
        by=sender.name,
        role=sender.role,
        action=plain(f"{request.method} {request.path}")[:MAX_TARGET_LENGTH],
        thing=plain(thing)[:MAX_TARGET_LENGTH],
        reason=reason,
        address=sender.address,
    )


def failed(acted: OperatorActed, now_ms: int) -> OperatorActed:
    """Return the action as one that could not be applied."""
    return msgspec.structs.replace(acted, at=instant(now_ms), outcome=FAILED)


def reading_of(
    request: web.Request, path: Mapping[str, str], new_id: Callable[[], str], now_ms: int
) -> OperatorActed | None:
    """Return the reading that reveals personal data; None if the request asks for none. Raises a 422 problem."""
    if not reveals(request):
        return None
    found = action_of(request, new_id, _thing(path), _reason(request))
    return found and msgspec.structs.replace(found, at=instant(now_ms), outcome=READ)


def reveals(request: web.Request) -> bool:
    """Return whether an operator asks for personal data with `?reveal=true`. Raises a 422 problem for another value."""
    if request.method == "POST":
        return False
    text = request.query.get("reveal", "false")
    if text not in ("true", "false"):
        raise Problem(422, "invalid", f"reveal={text}: it must be true or false")
    return text == "true" and sender_of(request).role is Role.OPERATOR


def sees_personal_data(request: web.Request) -> bool:
    """Return whether the answer may have personal data: a driver sees its own work, an operator what it reveals."""
    return sender_of(request).role is Role.DRIVER or reveals(request)


def _thing(path: Mapping[str, str]) -> str:
    """Return the thing that the variables of a path name; empty if they name none."""
    if "name" in path:
        return "/".join(path[part] for part in ("name", "key") if part in path)
    if "offset" in path:
        return f"{path['partition']}/{path['offset']}"
    return next((path[name] for name in THINGS if name in path), "")


def _reason(request: web.Request) -> str:
    reason = request.query.get("reason", "").strip()
    if not reason:
        raise Problem(422, "invalid", f"reason: {NO_REASON}", [FieldError("/reason", NO_REASON)])
    try:
        return str(msgspec.convert(reason, Text))
    except msgspec.ValidationError:
        wrong = f"it must have at most {MAX_TEXT_LENGTH} characters" if plain(reason) == reason else ADVICE[LINE]
        raise Problem(422, "invalid", f"reason: {wrong}", [FieldError("/reason", wrong)]) from None
