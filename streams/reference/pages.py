"""Pages of the documents: HTML with its own style and script, which loads nothing else.

Schemas are trees of `<details>`. The script filters the page; without it everything can still be read and searched. The
usual viewers are larger, and compile schemas to code, which a strict content security policy forbids.
"""

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from html import escape
from importlib.resources import files
from json import dumps
from typing import Any, NamedTuple
from urllib.parse import quote

from markdown_it import MarkdownIt

from topics.patterns import LINE, NOTE, in_ecmascript

MAX_DEPTH = 6
"""Nesting of a schema beyond which only its name is shown."""
LIMITS = {
    "minimum": "at least {:,}",
    "maximum": "at most {:,}",
    "minLength": "at least {:,} characters",
    "maxLength": "at most {:,} characters",
    "minItems": "at least {:,}",
    "maxItems": "at most {:,}",
}
"""Limit in a schema -> words."""
WORDS = {in_ecmascript(LINE): "one line", in_ecmascript(NOTE): "lines"}
"""Pattern of a free text -> words."""
ADDRESS = "http://127.0.0.1:6066"

Schema = Mapping[str, Any]


class Page(NamedTuple):
    """A page and its content security policy."""

    html: str
    policy: str


class Entry(NamedTuple):
    """An entry of a page: its anchor, its label in the contents, and its content, both HTML."""

    anchor: str
    label: str
    content: str


def http_page(document: Mapping[str, Any]) -> Page:
    """Return the page of an OpenAPI document."""
    sections: dict[str, list[Entry]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            sections[operation["tags"][0]].append(_request(path, method, operation, document["components"]))
    texts = {tag["name"]: tag["description"] for tag in document["tags"]}
    links = '<a href="/docs/events">Topics</a> <a href="/openapi.json">openapi.json</a>'
    return _page("HTTP API", document["info"]["description"], links, sections, texts)


def events_page(document: Mapping[str, Any]) -> Page:
    """Return the page of an AsyncAPI document."""
    schemas = document["components"]["schemas"]
    sections = {
        channel["address"]: [_message(name, message, each, schemas) for each, message in channel["messages"].items()]
        for name, channel in document["channels"].items()
    }
    texts = {channel["address"]: _about(channel) for channel in document["channels"].values()}
    links = '<a href="/docs/">HTTP API</a> <a href="/asyncapi.json">asyncapi.json</a>'
    return _page("Topics", document["info"]["description"], links, sections, texts)


def _about(channel: Mapping[str, Any]) -> str:
    binding = channel["bindings"]["kafka"]
    config = ", ".join(f"`{name}={_value(value)}`" for name, value in binding["topicConfiguration"].items())
    outside = "Outside parties may write to it. " if channel["tags"] else ""
    return f"{channel['summary']} {outside}{binding['partitions']} partitions, {config}.\n\n{channel['description']}"


def _value(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def _request(path: str, method: str, operation: Mapping[str, Any], components: Mapping[str, Any]) -> Entry:
    name, verb = operation["operationId"], method.upper()
    label = f'<b class="{method}">{verb}</b> <span>{escape(path)}</span>'
    schemas = components["schemas"]
    parts = [f"<p><strong>{_inline(operation['summary'])}.</strong></p>", _markdown(operation["description"])]
    if operation["parameters"]:
        rows = "".join(_parameter(parameter, schemas) for parameter in operation["parameters"])
        parts.append(f"<h4>Parameters</h4><ul class=tree>{rows}</ul>")
    if "requestBody" in operation:
        [content] = operation["requestBody"]["content"].values()
        optional = "" if operation["requestBody"]["required"] else " <i>may be empty</i>"
        parts.append(f"<h4>Body{optional}</h4>{_tree(content['schema'], schemas)}")
    parts.append("<h4>Example</h4>" + _code(_curl(path, verb, operation)))
    answers = "".join(
        _answer(status, _resolved(answer, components), schemas) for status, answer in operation["responses"].items()
    )
    parts.append(f"<h4>Answers</h4>{answers}")
    return Entry(name, label, "".join(parts))


def _parameter(parameter: Mapping[str, Any], schemas: Schema) -> str:
    mark = "" if parameter.get("required") else "?"
    kind = f"<em>{_kind(parameter['schema'], schemas)} in the {parameter['in']}</em>"
    return f"<li><code>{escape(parameter['name'])}{mark}</code> {kind} {_inline(parameter.get('description', ''))}"


def _resolved(answer: Mapping[str, Any], components: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in answer:
        return answer
    found: Mapping[str, Any] = components["responses"][answer["$ref"].rpartition("/")[2]]
    return found


def _answer(status: str, answer: Mapping[str, Any], schemas: Schema) -> str:
    head = f"<b class=s{status[0]}>{status}</b> {_inline(answer['description'])}"
    content = answer.get("content", {}).get("application/json")
    if content is None:
        return f"<div class=answer>{head}</div>"
    example = _code(dumps(content["example"], indent=2, ensure_ascii=False))
    return f"<details><summary>{head}</summary>{_tree(content['schema'], schemas)}{example}</details>"


def _curl(path: str, verb: str, operation: Mapping[str, Any]) -> str:
    """Return the command that sends the example of a request."""
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            schema = parameter["schema"]
            value = str([*schema.get("examples", []), *schema.get("enum", []), parameter.get("example", "1")][0])
            path = path.replace(f"{{{parameter['name']}}}", quote(value, safe=":"))
    parts = ["curl", *(["-H 'Authorization: Bearer KEY'"] if operation["security"] else [])]
    streams = "text/event-stream" in operation["responses"].get("200", {}).get("content", {})
    parts += ["-N"] if streams else []
    if "requestBody" in operation:
        [content] = operation["requestBody"]["content"].values()
        parts.append("--json '" + dumps(content["example"], ensure_ascii=False).replace("'", r"'\''") + "'")
    elif verb != "GET":
        parts.append(f"-X {verb}")
    return " \\\n  ".join([" ".join(parts[:2]), *parts[2:], f"{ADDRESS}{path}"])


def _message(channel: str, message: Mapping[str, Any], name: str, schemas: Schema) -> Entry:
    parts = [f"<p><strong>{_inline(message['summary'])}</strong></p>", _markdown(message.get("description", ""))]
    parts.append(f"<h4>Key</h4><p>{_inline(message['bindings']['kafka']['key']['description'])}</p>")
    parts.append(f"<h4>Headers</h4>{_tree(message['headers'], schemas)}")
    parts.append(f"<h4>Value</h4>{_tree(message['payload'], schemas)}")
    for example in message.get("examples", ()):
        parts.append("<h4>Example</h4>" + _code(dumps(example["payload"], indent=2, ensure_ascii=False)))
    if message.get("contentType") is None:
        parts.append(f'<p><a href="/schemas/{channel}.{name}.json">JSON Schema</a></p>')
    return Entry(f"{channel}.{name}", escape(name), "".join(parts))


def _tree(schema: Schema, schemas: Schema, depth: int = 0) -> str:
    """Return a schema as a list of fields, each with the fields of its type inside it."""
    schema = _target(schema, schemas)
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if options:
        return "".join(f"<p>{_kind(option, schemas)}</p>{_tree(option, schemas, depth)}" for option in options)
    if schema.get("type") == "array":
        return f"<p>A list of:</p>{_tree(schema.get('items', {}), schemas, depth)}"
    if "properties" not in schema:
        return f"<p><em>{_kind(schema, schemas)}</em> {_inline(schema.get('description', ''))}</p>"
    required = schema.get("required", ())
    rows = (_field(name, part, name in required, schemas, depth) for name, part in schema["properties"].items())
    return f"<ul class=tree>{''.join(rows)}</ul>"


def _field(name: str, part: Schema, required: bool, schemas: Schema, depth: int) -> str:
    mark = "" if required else "?"
    target = _target(part, schemas)
    meaning = part.get("description") or (target.get("description", "") if target is not part else "")
    text = f"<code>{escape(name)}{mark}</code> <em>{_kind(part, schemas)}</em> {_inline(meaning)}"
    if depth == MAX_DEPTH or not _is_object(target, schemas):
        return f"<li>{text}"
    return f"<li><details><summary>{text}</summary>{_tree(target, schemas, depth + 1)}</details>"


def _target(schema: Schema, schemas: Schema) -> Schema:
    """Return the schema that another one stands for: that of a reference, or the only one that is not null."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        return _target(options[0], schemas)
    if "$ref" in schema:
        found: Schema = schemas[schema["$ref"].rpartition("/")[2]]
        return found
    return schema


def _is_object(schema: Schema, schemas: Schema) -> bool:
    if schema.get("type") == "array":
        return _is_object(_target(schema.get("items", {}), schemas), schemas)
    return "properties" in schema or len(schema.get("anyOf", ())) > 1


def _kind(schema: Schema, schemas: Schema) -> str:
    """Return the type of a value and its limits, as HTML."""
    if "anyOf" in schema:
        return " or ".join(_kind(option, schemas) for option in schema["anyOf"])
    if "$ref" in schema:
        target = _target(schema, schemas)
        return _kind(target, schemas) if "enum" in target else escape(target.get("title", "object"))
    if "enum" in schema:
        return " | ".join(f"<code>{escape(dumps(value))}</code>" for value in schema["enum"])
    if "const" in schema:
        return f"<code>{escape(dumps(schema['const']))}</code>"
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}), schemas)}{_limits(schema)}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'], schemas)}"
    kind = "time" if schema.get("format") == "date-time" else str(schema.get("type", "anything"))
    return f"{escape(kind)}{_pattern(schema.get('pattern'))}{_limits(schema)}"


def _pattern(pattern: str | None) -> str:
    if pattern is None:
        return ""
    if pattern in WORDS:
        return f", {WORDS[pattern]}"
    return f" <code class=pattern>{escape(pattern)}</code>"


def _limits(schema: Schema) -> str:
    found = ", ".join(words.format(schema[name]) for name, words in LIMITS.items() if name in schema)
    return f" ({found})" if found else ""


def _code(text: str) -> str:
    return f"<pre tabindex=0><code>{escape(text)}</code></pre>"


def _markdown(text: str) -> str:
    return str(_parser().render(text))


def _inline(text: str) -> str:
    return str(_parser().renderInline(text))


def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _page(title: str, text: str, links: str, sections: Mapping[str, Iterable[Entry]], texts: Mapping[str, str]) -> Page:
    style, script = (files("streams.reference").joinpath(f"page.{kind}").read_text() for kind in ("css", "js"))
    contents = _each(sections, lambda name, entries: f"<h2>{escape(name)}</h2><ul>{''.join(map(_link, entries))}</ul>")
    body = _each(
        sections,
        lambda name, entries: (
            f"<section><h2>{escape(name)}</h2>{_markdown(texts[name])}{''.join(map(_article, entries))}</section>"
        ),
    )
    html = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)} · Dabbawala</title><style>{style}</style>"
        f"<header><h1>Dabbawala <small>{escape(title)}</small></h1><nav>{links}</nav>"
        '<input type="search" id="search" placeholder="Search (press /)" aria-label="Search"></header>'
        f'<div class="columns"><nav class="contents" aria-label="Contents">{contents}</nav>'
        f"<main>{_markdown(text)}{body}<p id=none hidden>Nothing has these words.</p></main></div>"
        f"<script>{script}</script></html>"
    )
    return Page(html, _policy(style, script))


def _each(sections: Mapping[str, Iterable[Entry]], show: Callable[[str, Iterable[Entry]], str]) -> str:
    return "".join(show(name, entries) for name, entries in sections.items())


def _link(entry: Entry) -> str:
    return f'<li><a href="#{entry.anchor}">{entry.label}</a>'


def _article(entry: Entry) -> str:
    head = f'<h3><a href="#{entry.anchor}">{entry.label}</a></h3>'
    return f'<article id="{entry.anchor}">{head}{entry.content}</article>'


def _policy(style: str, script: str) -> str:
    """Return the content security policy: the style and the script of the page, and nothing else."""
    hashes = (b64encode(sha256(text.encode()).digest()).decode() for text in (style, script))
    style_hash, script_hash = (f"'sha256-{each}'" for each in hashes)
    return (
        f"default-src 'none'; style-src {style_hash}; script-src {script_hash}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
