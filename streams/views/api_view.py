"""Base class of all views."""

from collections.abc import Mapping
from typing import Any, ClassVar

from aiohttp import web
from faust.web import View

from streams.access.rules import Rule
from streams.services import Services
from streams.web.doorkeeper import is_forwarded, sender_of


class ApiView(View):
    """A route of one worker. Handlers take the variables of the path by name."""

    services: ClassVar[Services]
    """The parts of the worker, set by `streams.views.register`."""
    rules: ClassVar[Mapping[str, Rule]]
    """The rule of each method, set by `streams.views.register`."""
    scans: ClassVar[bool] = False
    """True if GET reads a table or a part of it that may be large. Such requests take turns."""

    async def dispatch(self, request: Any) -> Any:
        """Admit the request and call the handler of its method. The middleware turns errors into problems."""
        method = self.methods[request.method.lower()]
        if request.method not in self.get_methods():
            raise web.HTTPMethodNotAllowed(request.method, sorted(self.get_methods()))
        rule = self.rules["GET" if request.method == "HEAD" else request.method]
        await self.services.doorkeeper.admit(request, rule, request.match_info)
        if not self.scans or request.method == "POST" or is_forwarded(request):
            return await method(request, **request.match_info)
        # the first worker's turns: two workers would wait for each other
        async with self.services.limits.scan(sender_of(request).name):
            return await method(request, **request.match_info)
