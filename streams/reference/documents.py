"""Documents of one installation, each made when it is first wanted."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import msgspec

from streams.reference import asyncapi, openapi
from streams.reference.pages import Page, events_page, http_page


class Documents:
    """Documents of the routes, and of the topics with a prefix and a number of partitions."""

    def __init__(self, routes: Mapping[str, type], topic_prefix: str, partitions: int) -> None:
        self._routes = routes
        self._topic_prefix = topic_prefix
        self._partitions = partitions

    @cached_property
    def openapi(self) -> bytes:
        """OpenAPI document."""
        return msgspec.json.encode(self._http)

    @cached_property
    def asyncapi(self) -> bytes:
        """AsyncAPI document."""
        return msgspec.json.encode(self._events)

    @cached_property
    def http_page(self) -> Page:
        """Page of the HTTP API."""
        return http_page(self._http)

    @cached_property
    def events_page(self) -> Page:
        """Page of the topics."""
        return events_page(self._events)

    @property
    def _http(self) -> dict[str, Any]:
        return openapi.document(self._routes)

    @property
    def _events(self) -> dict[str, Any]:
        return asyncapi.document(self._topic_prefix, self._partitions)
