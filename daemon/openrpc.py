"""`rpc.discover`: the method table as an OpenRPC document (open-rpc.org, version 1.3)."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any

from daemon.jsonrpc import Method, describe


def document(methods: Mapping[str, Method], *, version: str) -> dict[str, Any]:
    """The OpenRPC document of the methods."""
    return {
        "openrpc": "1.3.2",
        "info": {"title": "gossipd control API", "version": version},
        "methods": [_method(methods[name]) for name in sorted(methods)],
    }


def _method(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "summary": method.summary,
        "tags": [{"name": "read-only" if method.read_only else "changes"}],
        "paramStructure": "either",
        "params": [_parameter(p) for p in method.parameters.values()],
        "result": {"name": "result", "schema": {}},
    }


def _parameter(parameter: inspect.Parameter) -> dict[str, Any]:
    required = parameter.default is inspect.Parameter.empty
    schema = _schema(parameter.annotation)
    if not required:
        schema["default"] = parameter.default
    return {"name": parameter.name, "required": required, "schema": schema}


def _schema(hint: Any) -> dict[str, Any]:
    if isinstance(hint, types.UnionType):
        return {"anyOf": [_schema(arg) for arg in typing.get_args(hint)]}
    schema: dict[str, Any] = {"type": describe(hint)}
    if typing.get_origin(hint) is list:
        schema["items"] = _schema(typing.get_args(hint)[0])
    return schema
