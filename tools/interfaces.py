"""OpenAPI and AsyncAPI documents of an installation with the default settings, as a worker serves them."""

import msgspec

from streams.reference import asyncapi as topics
from streams.reference import openapi as http
from streams.settings import Settings
from streams.views import ROUTES


def openapi() -> str:
    """Return the document of the HTTP API."""
    return _text(http.document(ROUTES))


def asyncapi() -> str:
    """Return the document of the topics."""
    settings = Settings.from_environment({})
    return _text(topics.document(settings.topic_prefix, settings.partitions))


def _text(document: dict[str, object]) -> str:
    return msgspec.json.format(msgspec.json.encode(document).decode(), indent=1) + "\n"
