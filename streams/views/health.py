"""Probes of one worker, for an orchestrator or a load balancer. They are not forwarded."""

from typing import Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from streams.views.api_view import ApiView
from streams.web.operation import operation
from streams.web.problems import SOON, Problem
from streams.web.requests import respond


class Alive(msgspec.Struct, frozen=True):
    """A worker whose event loop runs."""

    status: Literal["alive"]


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that is ready, and its open partitions."""

    status: Literal["ready"]
    partitions: list[int]
    failpoints: str | UnsetType = UNSET


class Live(ApiView):
    """Liveness."""

    @operation("isAlive", {200: Alive})
    async def get(self, request: web.Request) -> web.Response:
        """Report that the event loop of this worker runs.

        - 200: `{"status": "alive"}`. If there is no answer, restart the worker.
        """
        return respond(200, Alive(status="alive"))


class Ready(ApiView):
    """Readiness."""

    @operation("isReady", {200: Readiness})
    async def get(self, request: web.Request) -> web.Response:
        """Report whether this worker has restored and opened every task that is assigned to it.

        - 200: `{"status": "ready", "partitions": [...]}` with the open partitions, and `failpoints` if there are any.
        - 503: a task is being restored, or the clocks of worker and brokers differ too much; `detail` gives the reason.
        """
        if not self.services.engine.ready():
            why = next(iter(self.services.engine.clock_skewed.values()), "not every task of this worker is restored")
            raise Problem(503, "not-ready", why, headers=SOON)
        partitions, failpoints = self.services.engine.open_partitions(), self.services.settings.failpoints
        return respond(200, Readiness(status="ready", partitions=partitions, failpoints=failpoints or UNSET))
