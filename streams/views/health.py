"""Probes of one worker, for an orchestrator or a load balancer. They are not forwarded."""

from aiohttp import web

from streams.views.api_view import ApiView
from streams.web.problems import SOON, Problem
from streams.web.requests import respond


class Live(ApiView):
    """Liveness."""

    async def get(self, request: web.Request) -> web.Response:
        """Report that the event loop of this worker runs.

        - 200: `{"status": "alive"}`. If there is no answer, restart the worker.
        """
        return respond(200, {"status": "alive"})


class Ready(ApiView):
    """Readiness."""

    async def get(self, request: web.Request) -> web.Response:
        """Report whether this worker has restored and opened every task that is assigned to it.

        - 200: `{"status": "ready", "partitions": [...]}` with the open partitions, and `failpoints` if there are any.
        - 503: a task is being restored, or the clocks of worker and brokers differ too much; `detail` gives the reason.
        """
        if not self.services.engine.ready():
            why = next(iter(self.services.engine.clock_skewed.values()), "not every task of this worker is restored")
            raise Problem(503, "not-ready", why, headers=SOON)
        failpoints = self.services.settings.failpoints
        body = {"status": "ready", "partitions": self.services.engine.open_partitions()}
        return respond(200, body | ({"failpoints": failpoints} if failpoints else {}))
