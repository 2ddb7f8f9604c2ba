"""Documents of the interfaces, for programs and for people.

They describe this version of the worker. The pages load nothing from elsewhere. A browser asks for a password: a key,
with any name.
"""

import asyncio
from typing import Any

from aiohttp import web

from streams.reference.pages import Page
from streams.reference.schemas import record_schema, record_types
from streams.views.api_view import ApiView
from streams.web.operation import operation
from streams.web.problems import Problem

SCHEMA = "application/schema+json"
HTML = "text/html"


class OpenApi(ApiView):
    """Document of the HTTP API."""

    @operation("getOpenApi", {200: dict[str, Any]})
    async def get(self, request: web.Request) -> web.Response:
        """Return the OpenAPI 3.1 document of the HTTP API.

        - 200: the document, as `docs/openapi.json` of this version.
        """
        body = await asyncio.to_thread(lambda: self.documents.openapi)
        return web.Response(body=body, content_type="application/json")


class AsyncApi(ApiView):
    """Document of the topics."""

    @operation("getAsyncApi", {200: dict[str, Any]})
    async def get(self, request: web.Request) -> web.Response:
        """Return the AsyncAPI 3.1 document of the topics, with their names and partitions in this installation.

        - 200: the document.
        """
        body = await asyncio.to_thread(lambda: self.documents.asyncapi)
        return web.Response(body=body, content_type="application/json")


class RecordSchema(ApiView):
    """Schema of a record type."""

    @operation("getSchema", {200: dict[str, Any]}, media=(SCHEMA,))
    async def get(self, request: web.Request, record: str) -> web.Response:
        """Return the JSON Schema (2020-12) of a record type, such as `orders.Placed`: topic and type.

        - 200: the schema. It refers to no other document.
        - 404: there is no such record type; `detail` lists them.
        """
        if record not in record_types():
            names = ", ".join(record_types())
            raise Problem(404, "unknown", f"there is no record type {record}; there are: {names}")
        return web.Response(body=await asyncio.to_thread(record_schema, record), content_type=SCHEMA)


class HttpPage(ApiView):
    """Page of the HTTP API."""

    @operation("readHttpPage", {200: str}, media=(HTML,))
    async def get(self, request: web.Request) -> web.Response:
        """Show the HTTP API as a page.

        - 200: the page.
        """
        return _html(await asyncio.to_thread(lambda: self.documents.http_page))


class EventsPage(ApiView):
    """Page of the topics."""

    @operation("readEventsPage", {200: str}, media=(HTML,))
    async def get(self, request: web.Request) -> web.Response:
        """Show the topics and their records as a page.

        - 200: the page.
        """
        return _html(await asyncio.to_thread(lambda: self.documents.events_page))


def _html(page: Page) -> web.Response:
    return web.Response(text=page.html, content_type=HTML, headers={"Content-Security-Policy": page.policy})
