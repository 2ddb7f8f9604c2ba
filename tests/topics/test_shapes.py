"""Fields that a record type does not have."""

import pytest

from topics.orders import Placed
from topics.shapes import UnknownField, pointer_to_surrogate, unknown_fields

ORDER = {
    "type": "Placed",
    "id": "x",
    "deliverAt": "2026-01-02T12:30:00Z",
    "is_paid": True,
    "customer": {"adress": "x", "name": "y"},
    "items": [{"modifiers": [{"name": "Raita", "quantity": 3}], "a/b~c": 1}],
}


def test_every_unknown_field_is_found_with_the_nearest_name() -> None:
    assert list(unknown_fields(ORDER, Placed)) == [
        UnknownField("/deliverAt", "deliver_at"),
        UnknownField("/is_paid", ""),
        UnknownField("/customer/adress", "address"),
        UnknownField("/items/0/modifiers/0/quantity", ""),
        UnknownField("/items/0/a~1b~0c", ""),
    ]


@pytest.mark.parametrize("value", [None, [], 3, "x", {"items": 3}, {"items": [3, None]}, {"customer": []}])
def test_value_of_another_shape_has_no_unknown_fields(value: object) -> None:
    assert list(unknown_fields(value, Placed)) == []


@pytest.mark.parametrize(
    ("value", "pointer"),
    [("x", None), ("\ud800", ""), ({"a": [1, "\udfff"]}, "/a/1"), ({"a": {"\ud800": 1}}, "/a"), ([{}, []], None)],
)
def test_half_of_a_surrogate_pair_is_found(value: object, pointer: str | None) -> None:
    assert pointer_to_surrogate(value) == pointer
