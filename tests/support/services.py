"""Parts of a worker for tests that connect to nothing."""

from typing import Any, TypeVar

from streams.build import Surroundings, build
from streams.services import Services
from streams.settings import Settings
from streams.views.api_view import ApiView

V = TypeVar("V", bound=ApiView)


def unconnected_services(surroundings: Surroundings | None = None, **environment: str) -> Services:
    """Return the services of a worker that is built and not started."""
    unset = {"DABBAWALA_CATALOGUE": "", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    return build(Settings.from_environment({**unset, **environment}), surroundings=surroundings)


def view_of(services: Services, view: type[V], **more: Any) -> V:
    """Return a view, bound as `streams.views.register` binds it."""
    bound: Any = type(view.__name__, (view,), {"services": services, **more})
    made: V = bound(services.app, services.app.web)
    return made
