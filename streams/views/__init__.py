"""The HTTP routes, one module per resource. `ROUTES` lists them; `register` adds them to a worker's app."""

from collections.abc import Mapping

from streams.access.rules import RULES, Rule
from streams.reference.documents import Documents
from streams.services import Services
from streams.views import (
    audit,
    calls,
    dead_letters,
    drivers,
    feed,
    health,
    metrics,
    operations,
    orders,
    payments,
    pos,
    reference,
    restaurants,
    rows,
    tables,
    traces,
    workflows,
)
from streams.views.api_view import ApiView

ROUTES: Mapping[str, type[ApiView]] = {
    "/v1/orders": orders.Orders,
    "/v1/orders/{order}": orders.OrderDetail,
    "/v1/orders/{order}/journal": orders.OrderJournal,
    "/v1/orders/{order}/settled": orders.OrderSettled,
    "/v1/orders/{order}/erased": orders.OrderErased,
    "/v1/orders/{order}/events": feed.OrderEvents,
    "/v1/events": feed.Events,
    "/v1/workflows": workflows.Workflows,
    "/v1/orders/{order}/workflow": workflows.OrderWorkflow,
    "/v1/payments/{provider}/events": payments.PaymentEvents,
    "/v1/pos/{restaurant}/tickets/{order}/{event:accepted|rejected|finished}": pos.TicketEvents,
    "/v1/callbacks/{capability}/payments/{provider}/{order}": payments.PaymentCallback,
    "/v1/callbacks/{capability}/pos/{restaurant}/{order}/{event:accepted|rejected|finished}": pos.TicketCallback,
    "/v1/drivers": drivers.Drivers,
    "/v1/drivers/{driver}": drivers.DriverState,
    "/v1/drivers/{driver}/available": drivers.Available,
    "/v1/drivers/{driver}/unavailable": drivers.Unavailable,
    "/v1/drivers/{driver}/pickup": drivers.Pickup,
    "/v1/drivers/{driver}/delivered": drivers.Dropoff,
    "/v1/drivers/{driver}/location": drivers.DriverLocation,
    "/v1/drivers/{driver}/delivery": drivers.AssignedDelivery,
    "/v1/restaurants": restaurants.Restaurants,
    "/v1/restaurants/{restaurant}": restaurants.RestaurantDetail,
    "/v1/calls": calls.Calls,
    "/v1/calls/{order}/{purpose:.+}/{command:retry|abandon}": calls.CallCommand,
    "/v1/parties": calls.Parties,
    "/v1/regions/{region}": operations.Region,
    "/v1/timers": operations.Timers,
    "/v1/tasks": operations.AllTasks,
    "/v1/dead-letters": dead_letters.DeadLetters,
    "/v1/dead-letters/{partition}/{offset}": dead_letters.DeadLetterDetail,
    "/v1/dead-letters/{partition}/{offset}/{command:replay|discard}": dead_letters.LetterCommand,
    "/v1/audit": audit.AuditTrail,
    "/docs/": reference.HttpPage,
    "/docs/events": reference.EventsPage,
    "/openapi.json": reference.OpenApi,
    "/asyncapi.json": reference.AsyncApi,
    "/schemas/{record}.json": reference.RecordSchema,
    "/table/": tables.Tables,
    "/table/{name}/": tables.TableRows,
    "/table/{name}/{key}": tables.RowsOfOwner,
    "/v1/rows/{name}": rows.RowFields,
    "/traces/{order}": traces.OrderTrace,
    "/metrics": metrics.Metrics,
    "/livez": health.Live,
    "/readyz": health.Ready,
}
"""Path -> view. `docs/http-api.md` follows this order; its text is the docstrings of the views' modules and methods."""


def register(services: Services) -> None:
    """Add every route to the app of these services. Each view becomes a subclass with the services and its rules.

    All share the documents of the routes.

    Raises `LookupError` for a route or method without a rule.
    """
    documents = Documents(ROUTES, services.settings.topic_prefix, services.settings.partitions)
    for path, view in ROUTES.items():
        given = {
            "services": services,
            "rules": rules_of(path, view),
            "documents": documents,
            "__doc__": view.__doc__,
        }
        bound = type(view.__name__, (view,), given)
        services.app.page(path)(bound)


def rules_of(path: str, view: type[ApiView]) -> Mapping[str, Rule]:
    """Return the rule of each method of a view. Raises `LookupError` if one has none."""
    rules = RULES.get(path, {})
    methods = {name.upper() for name in ("get", "post", "put", "delete", "patch") if name in vars(view)}
    if methods != set(rules):
        raise LookupError(f"the route {path} has the methods {sorted(methods)} and rules for {sorted(rules)}")
    return rules
