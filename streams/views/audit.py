"""Actions of operators, and their readings of personal data."""

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from streams.feed.audit_log import AuditUnavailable
from streams.views.api_view import ApiView
from streams.web.listing import PAGE_QUERY, limit_of
from streams.web.operation import operation
from streams.web.problems import SOON, Problem
from streams.web.requests import respond
from topics.audit import OperatorActed
from topics.records import Instant, epoch_ms

DEFAULT_SINCE_MS = 7 * 24 * 3600 * 1000
"""Age of the oldest records without `?since=`."""


class ShownAction(msgspec.Struct, frozen=True, kw_only=True):
    """Action of an operator, or reading of personal data."""

    id: str
    at: Instant | None
    by: str
    role: str
    action: str
    thing: str
    reason: str
    address: str
    outcome: str


class ActionList(msgspec.Struct, frozen=True):
    """Actions and readings, the newest first."""

    actions: list[ShownAction]


class AuditTrail(ApiView):
    """Records of the audit topic."""

    scans = True

    @operation(
        "listActions",
        {200: ActionList},
        query={
            "limit": PAGE_QUERY["limit"],
            "since": Annotated[Instant, Meta(description="Time of the oldest record, by default a week ago.")],
            "order": Annotated[str, Meta(description="Order, driver or other thing that the actions are about.")],
            "by": Annotated[str, Meta(description="Name of the key of the operator.")],
        },
    )
    async def get(self, request: web.Request) -> web.Response:
        """List what operators did and which personal data they read, the newest first.

        `?order=` selects the actions on one order, driver or other thing, `?by=` those of a key by its name. `?since=`
        is a time, by default a week ago; `?limit=` the number of records, from 1 to 1000, by default 100.

        - 200: `{"actions": [...]}`. Each has `id`, `at`, `by` and `role` of the key, `action` (method and path),
          `thing`, `reason`, `address` of the client, and `outcome`: the decision, `READ`, or `FAILED` for an action
          that became a dead letter.
        - 503: the topic cannot be read, or has too many records since then.
        """
        order, by = request.query.get("order"), request.query.get("by")
        try:
            found = await self.services.audit_log.newest(
                _since_ms(request, self.services.now_ms()),
                limit_of(request),
                lambda acted: order in (None, acted.thing) and by in (None, acted.by),
            )
        except AuditUnavailable as error:
            raise Problem(503, "audit-unread", str(error), headers=SOON) from None
        return respond(200, ActionList([_shown(acted) for acted in found]))


def _shown(acted: OperatorActed) -> ShownAction:
    return ShownAction(**msgspec.structs.asdict(acted))


def _since_ms(request: web.Request, now_ms: int) -> int:
    text = request.query.get("since")
    if text is None:
        return now_ms - DEFAULT_SINCE_MS
    try:
        return epoch_ms(msgspec.convert(text, Instant))
    except msgspec.ValidationError:
        raise Problem(422, "invalid", f"since={text}: it must be a time such as 2026-01-02T12:30:00Z") from None
