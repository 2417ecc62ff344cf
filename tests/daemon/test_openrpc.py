import json
from types import SimpleNamespace

import pytest

from daemon import methods
from daemon.events import EventLog
from daemon.openrpc import document

TYPES = {"string", "integer", "number", "boolean", "object", "array", "null"}


@pytest.fixture
def table():
    return methods.build(SimpleNamespace(events=EventLog()))


def test_every_method_is_documented(table):
    found = document(table, version="1.2.3")
    assert [m["name"] for m in found["methods"]] == sorted(table)
    assert found["info"]["version"] == "1.2.3"
    for method in found["methods"]:
        assert method["summary"].endswith(".")
        assert method["tags"][0]["name"] in ("read-only", "changes")


def test_the_document_is_json(table):
    text = json.dumps(document(table, version="1"), allow_nan=False)
    assert json.loads(text)["openrpc"].startswith("1.")


def test_parameters_carry_type_and_default(table):
    found = {m["name"]: m["params"] for m in document(table, version="1")["methods"]}
    assert found["overlay.join"] == [
        {"name": "address", "required": True, "schema": {"type": "string"}}
    ]
    since = next(p for p in found["metrics.get"] if p["name"] == "since")
    assert since == {
        "name": "since", "required": False, "schema": {"type": "integer", "default": 0},
    }  # fmt: skip
    job = next(p for p in found["job.submit"] if p["name"] == "job")
    assert job["schema"]["anyOf"] == [{"type": "object"}, {"type": "null"}]


def test_the_callers_connection_is_no_parameter(table):
    assert table["events.subscribe"].wants_connection
    assert "connection" not in table["events.subscribe"].parameters


def test_every_schema_is_of_a_json_type(table):
    for method in document(table, version="1")["methods"]:
        for parameter in method["params"]:
            schema = parameter["schema"]
            for one in schema.get("anyOf", [schema]):
                assert one["type"] in TYPES


async def test_the_api_describes_itself(table):
    found = await table["rpc.discover"].handler()
    assert {m["name"] for m in found["methods"]} == set(table)
