"""Parts of a worker for tests that connect to nothing."""

from typing import Any, TypeVar

from streams.build import build
from streams.services import Services
from streams.settings import Settings
from streams.views.api_view import ApiView

V = TypeVar("V", bound=ApiView)


def unconnected_services() -> Services:
    """Return the services of a worker that is built and not started."""
    return build(Settings.from_environment({"DABBAWALA_CATALOGUE": "", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}))


def view_of(services: Services, view: type[V]) -> V:
    """Return a view, bound as `streams.views.register` binds it."""
    bound: Any = type(view.__name__, (view,), {"services": services})
    made: V = bound(services.app, services.app.web)
    return made
