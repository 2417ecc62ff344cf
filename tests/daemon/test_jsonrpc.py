import json
import math
import re
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from daemon.jsonrpc import MAX_BATCH, MAX_DEPTH, Method, answer
from daemon.refusals import RpcError


async def subtract(minuend: int, subtrahend: int) -> int:
    """Subtract."""
    return minuend - subtrahend


async def total(numbers: list[int], scale: float = 1.0) -> float:
    """Add up."""
    return scale * sum(numbers)


async def greet(name: str | None = None) -> str:
    """Greet."""
    return f"hello {name}"


async def refuse() -> None:
    """Refuse."""
    raise RpcError(-32099, "unwilling", "not today", until="tomorrow")


async def crash() -> None:
    """A bug."""
    raise KeyError("the secret of /etc/shadow")


async def diverged() -> dict[str, object]:
    """Figures that JSON cannot say."""
    return {"loss": math.nan, "rows": [{"test_loss": math.inf}], "round": 3}


async def subscribe(connection: object, prefix: str = "") -> str:
    """Wants its caller."""
    return f"{connection} {prefix}"


METHODS = {
    f.__name__: Method(f.__name__, f.__doc__, f, True)
    for f in (subtract, total, greet, refuse, crash, diverged, subscribe)
}


def nothing(word):
    raise AssertionError(f"{word} is not JSON")


def ask(body, connection=None):
    """The parsed answer to a body (an object is sent as JSON), None for no answer."""
    body = body if isinstance(body, (str, bytes)) else json.dumps(body)
    text = trio.run(answer, body, METHODS, connection)
    return json.loads(text, parse_constant=nothing) if text else None


def request(method, params=None, id=1):
    return {"jsonrpc": "2.0", "method": method, "id": id} | ({"params": params} if params else {})


def error_of(body):
    response = ask(body)
    assert "result" not in response
    return response["error"]["code"], response["error"]["data"]["kind"], response["id"]


def test_positional_and_named_parameters():
    assert ask(request("subtract", [42, 23])) == {"jsonrpc": "2.0", "result": 19, "id": 1}
    named = {"subtrahend": 23, "minuend": 42}
    assert ask(request("subtract", named, id="x")) == {"jsonrpc": "2.0", "result": 19, "id": "x"}


@pytest.mark.parametrize("method", ["subtract", "no such", "crash", "refuse"])
def test_a_notification_is_never_answered(method):
    assert ask({"jsonrpc": "2.0", "method": method}) is None


def test_a_null_id_is_an_id():
    assert ask(request("greet", ["you"], id=None)) == {
        "jsonrpc": "2.0", "result": "hello you", "id": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
        '[{"jsonrpc": "2.0", "method": "greet", "id": "1"}, {"jsonrpc": "2.0", "method"]',
        "",
        b"\xff\xfe\xfd",
        "9" * 5000,
        '{"jsonrpc": "2.0", "method": "greet", "id": NaN}',
    ],
)
def test_what_is_no_json_is_a_parse_error(body):
    assert error_of(body) == (-32700, "parse_error", None)


@pytest.mark.parametrize("depth", [500, 900, 100_000])
@pytest.mark.parametrize("shape", ["[", '{"a":', '{"jsonrpc":"2.0","method":"greet","params":['])
def test_deep_nesting_is_an_error_like_any_other(shape, depth):
    closing = {"[": "]", '{"a":': "}"}.get(shape, "]}")
    inner = shape if shape != '{"jsonrpc":"2.0","method":"greet","params":[' else "["
    body = shape + inner * (depth - 1) + "1"
    body += {"[": "]", '{"a":': "}"}[inner] * (depth - 1) + closing
    response = ask(body)
    if response is not None:
        assert response["error"]["code"] == -32600
        assert response["error"]["data"]["kind"] == "invalid_request"


@pytest.mark.parametrize("bomb", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_a_json_bomb_is_an_error_like_any_other(bomb):
    assert ask(bomb)["error"]["code"] in (-32700, -32600)


def test_nesting_has_one_limit_wherever_it_stands():
    def nested(depth):
        value = 1
        for _ in range(depth):
            value = [value]
        return value

    # The request is one level, its params another.
    fits = request("total", [nested(MAX_DEPTH - 2)])
    assert error_of(fits)[1] == "invalid_params"
    assert error_of(request("total", [nested(MAX_DEPTH - 1)])) == (-32600, "invalid_request", None)


CHANGING = {**METHODS, "change": Method("change", "Changes.", greet, False)}


def test_a_read_only_caller_reaches_what_changes_nothing():
    batch = [request("greet"), request("change"), request("unknown")]
    text = trio.run(partial(answer, json.dumps(batch), CHANGING, read_only=True))
    fine, refused, unknown = json.loads(text)
    assert fine["result"] == "hello None"
    assert refused["error"]["code"] == -32020
    assert refused["error"]["data"]["kind"] == "not_allowed"
    assert "admin token" in refused["error"]["message"]
    assert unknown["error"]["code"] == -32601
    text = trio.run(partial(answer, json.dumps(batch), CHANGING))
    assert [entry.get("result") for entry in json.loads(text)] == ["hello None"] * 2 + [None]


def test_a_read_only_callers_notification_changes_nothing():
    called = []

    async def change() -> None:
        called.append(1)

    methods = {"change": Method("change", "Changes.", change, False)}
    body = '{"jsonrpc": "2.0", "method": "change"}'
    assert trio.run(partial(answer, body, methods, read_only=True)) == ""
    assert not called
    trio.run(answer, body, methods)
    assert called


@pytest.mark.parametrize(
    ("body", "id"),
    [
        ({"jsonrpc": "2.0", "method": 1, "params": "bar"}, None),
        ({"jsonrpc": "2.0", "method": 1, "id": 7}, 7),
        ({"jsonrpc": "1.0", "method": "greet", "id": "x"}, "x"),
        ({"method": "greet", "id": 7}, 7),
        ({"jsonrpc": "2.0", "method": "greet", "params": 3, "id": 7}, 7),
        ({"jsonrpc": "2.0", "method": "greet", "id": {}}, None),
        ({"jsonrpc": "2.0", "method": "greet", "id": True}, None),
        (1, None),
        ("text", None),
        ({}, None),
        ([], None),
    ],
)
def test_what_is_no_request_is_invalid(body, id):
    assert error_of(json.dumps(body)) == (-32600, "invalid_request", id)


def test_every_member_of_a_batch_is_answered_by_itself_and_in_order():
    answers = ask(
        [
            request("subtract", [42, 23], id="1"),
            {"jsonrpc": "2.0", "method": "greet"},
            {"foo": "boo"},
            request("foo.get", {"name": "myself"}, id="5"),
            request("crash", id="6"),
            request("total", [[1, 2]], id="9"),
        ]
    )
    assert [a["id"] for a in answers] == ["1", None, "5", "6", "9"]
    assert [a.get("result", a.get("error", {}).get("code")) for a in answers] == [
        19, -32600, -32601, -32603, 3.0,
    ]  # fmt: skip


def test_a_batch_of_nonsense_gives_as_many_errors():
    answers = ask([1, 2, 3])
    assert [a["error"]["code"] for a in answers] == [-32600] * 3
    assert [a["error"]["code"] for a in ask([[1], []])] == [-32600] * 2


def test_a_batch_of_notifications_is_not_answered():
    assert ask([{"jsonrpc": "2.0", "method": "greet"}] * 3) is None


def test_a_batch_has_a_limit():
    assert len(ask([request("greet")] * MAX_BATCH)) == MAX_BATCH
    assert error_of([request("greet")] * (MAX_BATCH + 1)) == (-32600, "invalid_request", None)


def test_an_unknown_method_is_named():
    response = ask(request("node.statu" + "s" * 500))
    assert response["error"]["code"] == -32601
    assert "node.status" in response["error"]["message"]
    assert "rpc.discover" in response["error"]["message"]
    assert len(response["error"]["message"]) < 200


@pytest.mark.parametrize(
    ("method", "params", "named"),
    [
        ("subtract", [1], "subtrahend"),
        ("subtract", [1, 2, 3], "too many"),
        ("subtract", {"minuend": 1, "subtrahnd": 2}, "subtrahend"),
        ("subtract", {"minuend": 1, "subtrahend": 2, "extra": 3}, "extra"),
        ("subtract", ["1", 2], "minuend must be integer, not \"1\""),
        ("subtract", [True, 2], "minuend must be integer, not true"),
        ("subtract", [1.0, 2], "minuend must be integer, not 1.0"),
        ("total", ["12"], "numbers must be array"),
        ("total", [[1, "2"]], "numbers must be array"),
        ("total", [[1], None], "scale must be number, not null"),
        ("greet", [3], "name must be string or null, not 3"),
        ("subscribe", {"connection": "mine"}, "connection"),
        ("refuse", {"self": 1}, "self"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_named(method, params, named):
    response = ask(request(method, params))
    assert response["error"]["code"] == -32602
    assert response["error"]["data"]["kind"] == "invalid_params"
    assert named in response["error"]["message"]


def test_an_integer_passes_for_a_number_and_null_for_nothing():
    assert ask(request("total", [[1, 2], 2]))["result"] == 6
    assert ask(request("greet", [None]))["result"] == "hello None"


def test_a_refusal_keeps_its_code_and_data():
    error = ask(request("refuse"))["error"]
    assert error == {
        "code": -32099,
        "message": "not today",
        "data": {"kind": "unwilling", "until": "tomorrow"},
    }


def test_a_bug_of_ours_tells_the_log_and_not_the_caller(caplog):
    response = ask(request("crash"))
    assert response["error"]["code"] == -32603
    text = json.dumps(response)
    assert not re.search(r"secret|shadow|KeyError|Traceback|\.py", text)
    assert "the secret of /etc/shadow" in caplog.text


def test_figures_that_json_cannot_say_are_null():
    result = ask(request("diverged"))["result"]
    assert result == {"loss": None, "rows": [{"test_loss": None}], "round": 3}
    assert ask('{"jsonrpc": "2.0", "method": "greet", "id": 1e999}')["id"] is None


def test_a_method_may_want_its_callers_connection():
    assert ask(request("subscribe", ["p"]), connection="C")["result"] == "C p"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | JSON,
        "method": st.sampled_from([*METHODS, "unknown"]) | JSON,
        "params": st.lists(JSON, max_size=3) | JSON,
        "id": st.integers() | st.text() | JSON,
    },
)


def check_responses(text):
    if not text:
        return
    parsed = json.loads(text, parse_constant=nothing)
    for response in parsed if isinstance(parsed, list) else [parsed]:
        assert response["jsonrpc"] == "2.0"
        assert set(response) - {"jsonrpc", "id"} in ({"result"}, {"error"})
        assert response["id"] is None or isinstance(response["id"], (str, int, float))
        if "error" in response:
            assert isinstance(response["error"]["code"], int)
            assert isinstance(response["error"]["message"], str)
            assert isinstance(response["error"]["data"]["kind"], str)


@given(st.binary(max_size=100))
def test_any_bytes_get_a_valid_answer(body):
    check_responses(trio.run(answer, body, METHODS))


@given(JSON | NEARLY | st.lists(NEARLY | JSON, max_size=4))
def test_any_json_gets_a_valid_answer(value):
    check_responses(trio.run(answer, json.dumps(value), METHODS))
