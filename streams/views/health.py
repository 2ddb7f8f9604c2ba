"""Whether the worker lives and whether it is ready."""

from aiohttp import web

from streams.app import app, engine
from streams.problems import SOON, Problem
from streams.views.ask import ApiView, respond


@app.page("/livez")
class Live(ApiView):
    """200 as long as the worker's event loop turns."""

    async def get(self, request: web.Request) -> web.Response:
        """Alive."""
        return respond(200, {"status": "alive"})


@app.page("/readyz")
class Ready(ApiView):
    """200 once every task that is this worker's is restored and open; 503 says why not."""

    async def get(self, request: web.Request) -> web.Response:
        """Ready, or 503."""
        if not engine.ready():
            why = next(iter(engine.held.values()), "not every task of this worker is restored")
            raise Problem(503, "not-ready", why, headers=SOON)
        return respond(200, {"status": "ready", "partitions": engine.open_partitions()})


@app.page("/tasks")
class Tasks(ApiView):
    """What the tasks of this worker are at."""

    async def get(self, request: web.Request) -> web.Response:
        """One entry a task: commits since it opened, records read up to, timers and calls waiting; and the counters."""
        tasks = [
            {
                "partition": task.partition,
                "commits": task.commits,
                "next_offsets": task.next_offsets,
                "calls": len(task.calls),
                "backlog": sum(task.backlog.values()),
            }
            for task in engine.tasks.values()
        ]
        return respond(200, {"counters": dict(engine.counters), "tasks": tasks})
