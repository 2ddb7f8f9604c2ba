"""Rules of the routes: which role may send which request, and for whose things.

A request without a valid key is answered 401, one that the sender's role may not send 403, and one for a thing of
another party 404, as if the thing did not exist.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from streams.access.keys import Identity, Role

Own = Callable[[Identity, Mapping[str, str]], bool]
"""Check whether the thing that a path names is the sender's own."""


def _variable(name: str) -> Own:
    return lambda identity, path: identity.speaks_for(path[name])


def _order(identity: Identity, path: Mapping[str, str]) -> bool:
    return identity.speaks_for(path["order"].partition(":")[0])


def _any(identity: Identity, path: Mapping[str, str]) -> bool:
    return True


class Callback(NamedTuple):
    """The sender that a capability in the path stands for."""

    role: Role
    party: str
    """Name of the path's variable with the party."""
    kind: str
    """The part of the path that distinguishes the callbacks of one order."""

    def subject(self, path: Mapping[str, str]) -> str:
        """Return the subject of the capability."""
        return callback_subject(self.kind, path[self.party], path["order"])

    def sender(self, path: Mapping[str, str]) -> Identity:
        """Return the sender."""
        return Identity("callback", self.role, path[self.party])


def callback_subject(kind: str, party: str, order: str) -> str:
    """Return the subject of the capability in a callback's address: one order of one party."""
    return f"{kind}/{party}/{order}"


class Rule(NamedTuple):
    """Rule of one method of one route."""

    roles: Mapping[Role, Own]
    public: bool = False
    """True if a request needs no key."""
    callback: Callback | None = None
    """Sender of a request whose path has a capability; None for other routes."""

    def allows_role(self, identity: Identity) -> bool:
        """Return whether the sender's role may send such requests."""
        return identity.role in self.roles

    def allows_thing(self, identity: Identity, path: Mapping[str, str]) -> bool:
        """Return whether the thing that the path names is within the sender's reach."""
        return self.roles[identity.role](identity, path)


def _rule(**roles: Own) -> Rule:
    return Rule(MappingProxyType({Role.OPERATOR: _any} | {Role(name): own for name, own in roles.items()}))


OPERATORS = _rule()
EVERYBODY = _rule(**dict.fromkeys(Role, _any))
PUBLIC = Rule(MappingProxyType({}), public=True)
OWN_ORDER = _rule(provider=_order)
OWN_DRIVER = _rule(driver=_variable("driver"))
OWN_TICKET = _rule(restaurant=_variable("restaurant"))
OWN_PAYMENT = _rule(payments=_variable("provider"))
POS, PAYMENTS = "pos", "payments"

RULES: Mapping[str, Mapping[str, Rule]] = {
    "/v1/orders": {"GET": _rule(provider=_any), "POST": _rule(provider=_any)},  # the views look at the provider
    "/v1/orders/{order}": {"GET": OWN_ORDER},
    "/v1/orders/{order}/journal": {"GET": OPERATORS},
    "/v1/orders/{order}/settled": {"POST": OPERATORS},
    "/v1/orders/{order}/erased": {"POST": OPERATORS},
    "/v1/orders/{order}/events": {"GET": OWN_ORDER},
    "/v1/events": {"GET": _rule(provider=_any)},  # the view shows a provider its own orders
    "/v1/workflows": {"GET": OPERATORS},
    "/v1/orders/{order}/workflow": {"GET": OPERATORS},
    "/v1/payments/{provider}/events": {"POST": OWN_PAYMENT},
    "/v1/pos/{restaurant}/tickets/{order}/{event:accepted|rejected|finished}": {"POST": OWN_TICKET},
    "/v1/callbacks/{capability}/payments/{provider}/{order}": {
        "POST": OWN_PAYMENT._replace(callback=Callback(Role.PAYMENTS, "provider", PAYMENTS))
    },
    "/v1/callbacks/{capability}/pos/{restaurant}/{order}/{event:accepted|rejected|finished}": {
        "POST": OWN_TICKET._replace(callback=Callback(Role.RESTAURANT, "restaurant", POS))
    },
    "/v1/drivers": {"GET": OPERATORS},
    "/v1/drivers/{driver}": {"GET": OWN_DRIVER},
    "/v1/drivers/{driver}/available": {"POST": OWN_DRIVER},
    "/v1/drivers/{driver}/unavailable": {"POST": OWN_DRIVER},
    "/v1/drivers/{driver}/pickup": {"POST": OWN_DRIVER},
    "/v1/drivers/{driver}/delivered": {"POST": OWN_DRIVER},
    "/v1/drivers/{driver}/location": {"POST": OWN_DRIVER},
    "/v1/drivers/{driver}/delivery": {"GET": OWN_DRIVER},
    "/v1/restaurants": {"GET": EVERYBODY},
    "/v1/restaurants/{restaurant}": {"GET": EVERYBODY},
    "/v1/calls": {"GET": OPERATORS},
    "/v1/calls/{order}/{purpose:.+}/{command:retry|abandon}": {"POST": OPERATORS},
    "/v1/parties": {"GET": OPERATORS},
    "/v1/regions/{region}": {"GET": OPERATORS},
    "/v1/timers": {"GET": OPERATORS},
    "/v1/tasks": {"GET": _rule(monitor=_any)},
    "/v1/dead-letters": {"GET": OPERATORS},
    "/v1/dead-letters/{partition}/{offset}": {"GET": OPERATORS},
    "/v1/dead-letters/{partition}/{offset}/{command:replay|discard}": {"POST": OPERATORS},
    "/v1/audit": {"GET": OPERATORS},
    "/docs/": {"GET": EVERYBODY},
    "/docs/events": {"GET": EVERYBODY},
    "/openapi.json": {"GET": EVERYBODY},
    "/asyncapi.json": {"GET": EVERYBODY},
    "/schemas/{record}.json": {"GET": EVERYBODY},
    "/table/": {"GET": OPERATORS},
    "/table/{name}/": {"GET": OPERATORS},
    "/table/{name}/{key}": {"GET": OPERATORS},
    "/v1/rows/{name}": {"GET": OPERATORS},
    "/traces/{order}": {"GET": OPERATORS},
    "/metrics": {"GET": _rule(monitor=_any)},
    "/livez": {"GET": PUBLIC},
    "/readyz": {"GET": PUBLIC},
}
"""Path -> method -> rule. A route or method of `streams.views.ROUTES` without a rule stops the start."""
