"""Declarations of requests: the types that a method of a view takes and answers.

A view declares each of its methods beside its docstring. The declaration has the types, and the docstring their meaning
and the problems. `streams.reference.openapi` makes the document of the HTTP API from both.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

JSON = "application/json"
NOTHING: Mapping[str, Any] = MappingProxyType({})
_DECLARED = "operation"

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Operation(NamedTuple):
    """Declaration of one method of one view. Types are those that msgspec reads and writes."""

    name: str
    """`operationId`: unique, a verb first."""
    answers: Mapping[int, Any]
    """Status below 400 -> type of the body; None for an answer without one."""
    body: Any
    """Type of the request's body; None if it takes none."""
    optional: tuple[str, ...]
    """Fields that the type of the body requires and the request does not."""
    query: Mapping[str, Any]
    """Parameter of the query -> type."""
    headers: Mapping[str, Any]
    """Header of the request -> type."""
    media: tuple[str, ...]
    """Types of content of the answer, among which `Accept` chooses. All but JSON are text."""
    event: Any
    """Type of the data of a server-sent event; None unless the answer is a stream of them."""
    example: Any
    """Example of the body; None to make one from its type."""


def operation(
    name: str,
    answers: Mapping[int, Any],
    *,
    body: Any = None,
    optional: tuple[str, ...] = (),
    query: Mapping[str, Any] = NOTHING,
    headers: Mapping[str, Any] = NOTHING,
    media: tuple[str, ...] = (JSON,),
    event: Any = None,
    example: Any = None,
) -> Callable[[Handler], Handler]:
    """Declare the method of a view below."""
    declared = Operation(name, answers, body, optional, query, headers, media, event, example)

    def declare(handler: Handler) -> Handler:
        handler.__dict__[_DECLARED] = declared
        return handler

    return declare


def operation_of(handler: Callable[..., Any]) -> Operation:
    """Return the declaration of a method of a view. Raises `LookupError` if it has none."""
    found = vars(handler).get(_DECLARED)
    if found is None:
        raise LookupError(f"{handler.__qualname__} has no declaration: add @operation(...) above it")
    declared: Operation = found
    return declared
