"""Metrics of one worker. They are not forwarded: a monitoring server scrapes each worker."""

from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from streams.views.api_view import ApiView
from streams.web.operation import operation


class Metrics(ApiView):
    """Metrics."""

    @operation("getMetrics", {200: str}, media=("text/plain",))
    async def get(self, request: web.Request) -> web.Response:
        """Show the metrics of this worker in the text format of Prometheus. docs/monitoring.md lists them.

        - 200: the metrics, as `text/plain`. The lag of the topics is missing if Kafka does not answer.
        """
        text = await self.services.metrics.text()
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
