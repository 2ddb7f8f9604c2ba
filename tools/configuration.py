"""Page of the settings, made from the source of ``streams/settings.py``.

Each field of ``Settings`` is a row: its variable, default, limits and docstring.
"""

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import streams.settings

SOURCE = Path(streams.settings.__file__)
INTRODUCTION = """# Settings

A worker reads its settings from the environment. A wrong value stops the start with one sentence that names the setting
and the values allowed. Commands and simulators read the same variables.

| setting | default | values | meaning |
|---|---|---|---|
"""
DEFAULTS = {
    "KAFKA_BOOTSTRAP_SERVERS": "the embedded Kafka",
    "DABBAWALA_APPLICATION": "the prefix",
    "DABBAWALA_REPLICATION_FACTOR": "1 with the embedded Kafka, else 3",
    "DABBAWALA_COMMIT_GAP_MS": "0 with the embedded Kafka, else 4",
    "DABBAWALA_PUBLIC_URL": "the worker's address",
    "DABBAWALA_CATALOGUE": "`catalogue.json`",
    "DABBAWALA_ALLOWED_ORIGINS": "none",
    "DABBAWALA_FAILPOINTS": "none",
    "OTEL_TRACES_SAMPLER_ARG": "0.01",
    "DABBAWALA_PARTY_SECRETS": "none",
    "DABBAWALA_KEYS": "`keys.json` in `DABBAWALA_DIR`",
    "DABBAWALA_SECRET_FILE": "`secret` in `DABBAWALA_DIR`",
}
"""Defaults that are shown in words, because the source computes them or they are empty."""
KINDS = {
    "_word": "letters, digits, `.`, `-`, `_`",
    "_url": "URL",
    "_servers": "`host:port[,host:port]`",
    "_file": "file",
    "_path": "file",
    "_address": "IP address",
    "_origins": "`origin[,origin...]`",
    "_party_url": "URL",
    "_networks": "`network[,network...]`",
    "_log_format": "`auto`, `console`, `json`",
    "_failpoints": "`name:action:every[,...]`",
    "_traced_share": "0 to 1",
    "get": "folder",
}
"""Function that reads a setting -> the values allowed, unless they are a range of numbers."""
OTHER = """| `DABBAWALA_URL` | the first worker here; for simulators `http://127.0.0.1:6066` | URL | Worker that \
commands and simulators use. |
| `DABBAWALA_KEY` | the key of this installation for the role | key | Key of the commands and simulators; \
`dabbawala keys new` makes one. |
| `DABBAWALA_ALLOW_FAILPOINTS` | 0 | 0 or 1 | 1: a worker may start with failpoints. |
| `DABBAWALA_MAVEN_URL` | Maven Central | URL | Source of Kafka's jars. |

Choose the number of partitions once: it cannot change later. A topic that exists keeps its retention; \
`faust -A streams.app topics check --create` changes it.
"""


class Setting(NamedTuple):
    """A setting as its page shows it."""

    variable: str
    default: str
    values: str
    meaning: str


def render() -> str:
    """Return the page of settings."""
    rows = "".join(f"| `{s.variable}` | {s.default} | {s.values} | {s.meaning} |\n" for s in settings())
    return INTRODUCTION + rows + OTHER


def settings() -> Iterator[Setting]:
    """Yield the settings in the order of the fields of ``Settings``."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    [declared] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings"]
    meanings = dict(_docstrings(declared))
    calls = {
        keyword.arg: keyword.value
        for node in ast.walk(declared)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
    }
    for field, meaning in meanings.items():
        yield _setting(_read_call(calls[field]), meaning)


def _docstrings(declared: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Yield each field with the docstring after it, empty if there is none."""
    body = [*declared.body, ast.Pass()]
    for node, after in pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            yield node.target.id, " ".join(str(text).replace("``", "`").split())


def _read_call(value: ast.expr) -> tuple[str, list[ast.expr]]:
    """Return the name of the function that reads a setting, and its arguments from the variable's name on."""
    for node in ast.walk(value):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            texts = [text for text in ast.walk(node) if isinstance(text, ast.Constant) and isinstance(text.value, str)]
            arguments: list[ast.expr] = node.args if len(node.args) > 1 else [*texts]
            if arguments:
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                if name in (*KINDS, "_number", "get"):
                    return name, arguments[1:] if name != "get" else arguments
    return "prefix", [ast.Constant("DABBAWALA_TOPIC_PREFIX"), ast.Constant("dabbawala")]


def _setting(call: tuple[str, list[ast.expr]], meaning: str) -> Setting:
    reader, arguments = call
    first = arguments[0]
    assert isinstance(first, ast.Constant)
    variable = str(first.value)
    default = DEFAULTS.get(variable) or f"`{_evaluated(arguments[1])}`"
    if reader != "_number":
        return Setting(variable, default, KINDS.get(reader, KINDS["_word"]), meaning)
    low, high, whole = _evaluated(arguments[2]), _evaluated(arguments[3]), ast.unparse(arguments[4]) == "int"
    return Setting(variable, default, f"{low} to {high}{', whole' if whole else ''}", meaning)


def _evaluated(value: ast.expr) -> str:
    """Return a default or limit as text. A name is that of a constant of ``streams.settings``."""
    found = getattr(streams.settings, value.id) if isinstance(value, ast.Name) else ast.literal_eval(value)
    return f"{found:g}" if isinstance(found, int | float) else str(found)
