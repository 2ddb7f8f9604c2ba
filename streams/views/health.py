"""Whether the worker lives and whether it is ready."""

from aiohttp import web

from streams.app import app, engine
from streams.views.ask import ApiView, respond
from streams.views.problems import SOON, Problem


@app.page("/livez")
class Live(ApiView):
    """200 as long as the worker's event loop turns."""

    async def get(self, request: web.Request) -> web.Response:
        """Alive."""
        return respond(200, {"status": "alive"})


@app.page("/readyz")
class Ready(ApiView):
    """200 once every task that is this worker's is restored and open."""

    async def get(self, request: web.Request) -> web.Response:
        """Ready, or 503."""
        if not engine.ready():
            raise Problem(503, "not-ready", "not every task of this worker is restored", headers=SOON)
        return respond(200, {"status": "ready", "partitions": engine.open_partitions()})
