"""Base class of all views."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

from aiohttp import web
from faust.web import View

from streams.access.rules import Rule
from streams.reference.documents import Documents
from streams.services import Services
from streams.web.doorkeeper import is_forwarded, sender_of
from streams.web.operators import reading_of
from topics.audit import OperatorActed


class ApiView(View):
    """A route of one worker. Handlers take the variables of the path by name."""

    services: ClassVar[Services]
    """The parts of the worker, set by `streams.views.register`."""
    rules: ClassVar[Mapping[str, Rule]]
    """The rule of each method, set by `streams.views.register`."""
    documents: ClassVar[Documents]
    """The documents of the routes, set by `streams.views.register`."""
    is_personal: ClassVar[bool] = False
    """True if GET shows personal data: masked, unless an operator reveals it, which is recorded."""
    streams: ClassVar[bool] = False
    """True if GET sends its answer itself: a reading of personal data is recorded before."""
    scans: ClassVar[bool] = False
    """True if GET reads a table or a part of it that may be large. Such requests take turns."""

    async def dispatch(self, request: Any) -> Any:
        """Admit the request and call the handler of its method. The middleware turns errors into problems."""
        method = self.methods[request.method.lower()]
        if request.method not in self.get_methods():
            raise web.HTTPMethodNotAllowed(request.method, sorted(self.get_methods()))
        rule = self.rules["GET" if request.method == "HEAD" else request.method]
        await self.services.doorkeeper.admit(request, rule, request.match_info)
        reading = self._reading(request)
        if reading is not None and self.streams:
            await self.services.decisions.write_audit(reading)
            reading = None
        if not self.scans or request.method == "POST" or is_forwarded(request):
            answer = await method(request, **request.match_info)
        else:
            # the first worker's turns: two workers would wait for each other
            async with self.services.limits.scan(sender_of(request).name):
                answer = await method(request, **request.match_info)
        if reading is not None and answer.status < HTTPStatus.BAD_REQUEST:  # without its record, no answer
            await self.services.decisions.write_audit(reading)
        return answer

    def _reading(self, request: web.Request) -> OperatorActed | None:
        """Return the reading of personal data to record; None without one, or if the first worker records it."""
        if not self.is_personal or is_forwarded(request):
            return None
        return reading_of(request, request.match_info, self.services.new_id, self.services.now_ms())
