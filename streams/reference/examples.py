"""Examples of requests and answers, made from their schemas."""

from collections.abc import Mapping
from typing import Any

from topics import patterns
from topics.patterns import in_ecmascript

TIME = "2026-01-02T12:30:00Z"
BY_PATTERN: Mapping[str, str] = {
    in_ecmascript(pattern): example
    for pattern, example in {
        patterns.PROVIDER: "my-shop",
        patterns.NAME: "ballard-slice",
        patterns.ORDER: "my-shop:1001",
        patterns.CHARGE: "ch_1",
        patterns.OPTIONAL_CHARGE: "re_1",
        patterns.KEY_ID: "ik-" + "0" * 32,
        patterns.IDEMPOTENCY_KEY: '"8e03978e-40d5"',
        patterns.CALL: "my-shop:1001/charge",
        patterns.CURRENCY: "INR",
        patterns.CURRENCY_OF_ANSWER: "INR",
        patterns.TIME_OF_DAY: "11:30",
        patterns.TIME_ZONE: "Asia/Kolkata",
        patterns.PARTY_URL: "https://pos.example/orders",
    }.items()
}
"""Pattern -> a text that matches it."""
BY_NAME: Mapping[str, Any] = {
    "driver": "asha",
    "region": "fort",
    "external_id": "1001",
    "lat": 18.9387,
    "lon": 72.8353,
    "worker": "http://127.0.0.1:6066",
    "address": "12 Mint Road",
    "quantity": 1,
    "outcome": "APPLIED",
}
"""Name of a field -> its value, if the schema does not say more."""
MAX_DEPTH = 20
"""Nesting beyond which an example is null."""


def example_of(schema: Mapping[str, Any], components: Mapping[str, Any], name: str = "", depth: int = 0) -> Any:
    """Return a value that a schema permits; ``name`` is that of its field."""
    if depth > MAX_DEPTH:
        return None
    if "$ref" in schema:
        return example_of(components[schema["$ref"].rpartition("/")[2]], components, name, depth + 1)
    if "anyOf" in schema:
        return example_of(schema["anyOf"][0], components, name, depth + 1)
    if "enum" in schema:
        return BY_NAME[name] if BY_NAME.get(name) in schema["enum"] else schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {
                field: example_of(part, components, field, depth + 1)
                for field, part in schema.get("properties", {}).items()
                if field in schema.get("required", ())
            }
        case "array":
            return [example_of(schema.get("items", {}), components, name, depth + 1)]
        case "string":
            return _text(schema, name)
        case "integer" | "number":
            return BY_NAME.get(name, max(schema.get("minimum", 1), min(1, schema.get("maximum", 1))))
        case "boolean":
            return True
    return None


def _text(schema: Mapping[str, Any], name: str) -> str:
    if schema.get("format") == "date-time":
        return TIME
    if schema.get("contentEncoding") == "base64":
        return "aGVsbG8="
    return str(BY_NAME.get(name) or BY_PATTERN.get(schema.get("pattern", ""), name or "text"))
