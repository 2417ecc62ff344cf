"""JSON-RPC 2.0: bytes in, bytes out, no transport.

jsonrpcserver supplies the request schema, the argument check, the response forms and the codes; the
loop around them is our own because its dispatcher cannot run on Trio, checks a batch as a whole
(the specification wants one answer a member) and puts exception texts into responses.

Rules kept here:
- every error has a code, a message and `data.kind`, a stable word for programs; never a traceback;
- a batch is answered in order, one member after the other, up to MAX_BATCH;
- what is nested deeper than MAX_DEPTH is refused whole, before anything looks into it;
- a read-only caller reaches only methods that change nothing.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import types
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jsonrpcserver.codes import (
    ERROR_INTERNAL_ERROR,
    ERROR_INVALID_PARAMS,
    ERROR_INVALID_REQUEST,
    ERROR_METHOD_NOT_FOUND,
    ERROR_PARSE_ERROR,
)
from jsonrpcserver.dispatcher import create_request, validate_args, validate_request
from jsonrpcserver.main import default_validator
from jsonrpcserver.request import Request
from jsonrpcserver.response import (
    ErrorResponse,
    SuccessResponse,
    serialize_error,
    serialize_success,
)
from jsonrpcserver.sentinels import NOCONTEXT, NOID
from oslash.either import Left

from daemon.refusals import NOT_ALLOWED, RpcError

log = logging.getLogger("gossipd.control")

MAX_BATCH = 64
MAX_DEPTH = 32  # a job is nested four deep

Handler = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Method:
    """One callable method: its documented name, what it does, and whether it changes nothing."""

    name: str
    summary: str
    handler: Handler
    read_only: bool

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The parameters a caller may give, with their types resolved."""
        hints = typing.get_type_hints(self.handler)
        return {
            name: parameter.replace(annotation=hints[name])
            for name, parameter in inspect.signature(self.handler).parameters.items()
            if name != "connection"
        }

    @property
    def wants_connection(self) -> bool:
        """Whether the handler needs the caller's connection (`events.subscribe`)."""
        return "connection" in inspect.signature(self.handler).parameters


async def answer(
    body: bytes | str,
    methods: Mapping[str, Method],
    connection: Any = None,
    *,
    read_only: bool = False,
) -> str:
    """The JSON text that answers `body`; '' where nothing is to be answered."""
    try:
        request = json.loads(body, parse_constant=_refuse_constant)
    except ValueError:
        return json.dumps(_error(None, ERROR_PARSE_ERROR, "parse_error", "not valid JSON"))
    except RecursionError:
        return json.dumps(_too_deep())
    if _is_too_deep(request):
        return json.dumps(_too_deep())
    caller = _Caller(methods, connection, read_only)
    if not isinstance(request, list):
        response = await _answer_one(request, caller)
        return "" if response is None else _text(response)
    if not request or len(request) > MAX_BATCH:
        message = f"a batch holds 1 to {MAX_BATCH} requests"
        return json.dumps(_error(None, ERROR_INVALID_REQUEST, "invalid_request", message))
    responses = [await _answer_one(item, caller) for item in request]
    answered = [response for response in responses if response is not None]
    return _text(answered) if answered else ""


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who asks, and what for it there is."""

    methods: Mapping[str, Method]
    connection: Any
    read_only: bool


async def _answer_one(item: Any, caller: _Caller) -> dict[str, Any] | None:
    if isinstance(item, list) or isinstance(validate_request(default_validator, item), Left):
        message = "not a JSON-RPC 2.0 request"
        return _error(_id_of(item), ERROR_INVALID_REQUEST, "invalid_request", message)
    request = create_request(item)
    response = await _call(request, caller)
    return None if request.id is NOID else response


async def _call(request: Request, caller: _Caller) -> dict[str, Any]:
    method = caller.methods.get(request.method)
    if method is None:
        message = f"there is no method {request.method[:80]!r}; rpc.discover lists them"
        return _error(request.id, ERROR_METHOD_NOT_FOUND, "method_not_found", message)
    if caller.read_only and not method.read_only:
        message = f"{method.name} needs the admin token; this one only reads"
        return _error(request.id, NOT_ALLOWED, "not_allowed", message)
    try:
        arguments = bind(method, request)
        if method.wants_connection:
            arguments["connection"] = caller.connection
        result = await method.handler(**arguments)
    except RpcError as error:
        return _error(request.id, error.code, error.kind, str(error), error.data)
    except Exception:
        log.exception("%s failed: a bug of ours", request.method)
        message = "internal error; the daemon's log has the details"
        return _error(request.id, ERROR_INTERNAL_ERROR, "internal_error", message)
    return serialize_success(SuccessResponse(result, request.id))


def bind(method: Method, request: Request) -> dict[str, Any]:
    """The arguments by name, with their types checked. Raises RpcError (invalid params)."""
    parameters = method.parameters
    signature = inspect.Signature(list(parameters.values()))

    def shape() -> None: ...

    shape.__signature__ = signature  # type: ignore[attr-defined]
    checked = validate_args(request, NOCONTEXT, shape)
    if isinstance(checked, Left):
        wanted = ", ".join(str(p).replace(" = ", "=") for p in parameters.values())
        message = f"{method.name}({wanted}): {checked._error.data}"
        raise RpcError(ERROR_INVALID_PARAMS, "invalid_params", message)
    positional, named = (
        (request.params, {}) if isinstance(request.params, list) else ([], request.params)
    )
    arguments = dict(signature.bind(*positional, **named).arguments)
    for name, value in arguments.items():
        if not _fits(value, parameters[name].annotation):
            wanted = describe(parameters[name].annotation)
            message = f"{method.name}: {name} must be {wanted}, not {json.dumps(value)[:80]}"
            raise RpcError(ERROR_INVALID_PARAMS, "invalid_params", message)
    return arguments


def describe(hint: Any) -> str:
    """A JSON type name for a parameter's annotation."""
    if isinstance(hint, types.UnionType):
        return " or ".join(describe(arg) for arg in typing.get_args(hint))
    origin = typing.get_origin(hint) or hint
    words = {
        str: "string", int: "integer", float: "number", bool: "boolean", dict: "object",
        list: "array", type(None): "null",
    }  # fmt: skip
    return words[origin]


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, arg) for arg in typing.get_args(hint))
    origin = typing.get_origin(hint) or hint
    if origin is float:
        return type(value) in (int, float)
    if origin is list:
        (inner,) = typing.get_args(hint)
        return type(value) is list and all(_fits(item, inner) for item in value)
    return type(value) is origin


def _is_too_deep(value: Any) -> bool:
    """Whether a value is nested deeper than MAX_DEPTH, told level by level."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True


def _too_deep() -> dict[str, Any]:
    message = f"a request is nested {MAX_DEPTH} deep at most"
    return _error(None, ERROR_INVALID_REQUEST, "invalid_request", message)


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _text(response: Any) -> str:
    """JSON knows no NaN and no infinity (a loss may be either): they become null."""
    try:
        return json.dumps(response, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(response))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _id_of(item: Any) -> Any:
    """The id of a broken request where it can be told, else null (specification, section 5)."""
    found = item.get("id") if isinstance(item, dict) else None
    return found if isinstance(found, (str, int)) and not isinstance(found, bool) else None


def _error(
    identity: Any, code: int, kind: str, message: str, data: dict[str, Any] | None = None
) -> dict[str, Any]:
    response = ErrorResponse(code, message, data or {"kind": kind}, identity)
    return serialize_error(response)
