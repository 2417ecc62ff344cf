"""Whatever a client sends, the control API answers JSON-RPC (or HTTP), and never by a bug."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.fuzz_contract import Broken
from benchmarks.fuzz_control_api import check_answer
from tests.fuzz.inputs import TARGETS, check, inputs, quick


@quick
@given(inputs("rpc"))
@example(b"\xff\xfe")
@example(b"[" * 100_000)
@example(b"9" * 5000)
def test_whatever_a_caller_asks(data):
    check("rpc", data)


@quick
@given(st.text(max_size=300))
def test_whatever_text_a_caller_sends(text):
    check("rpc", text.encode("utf-8", "surrogatepass"))


@quick
@given(inputs("http"))
def test_whatever_a_request_says(data):
    check("http", data)


@pytest.mark.parametrize("name", ["rpc", "http"])
def test_the_corpus_is_answered(name):
    for data in TARGETS[name].corpus:
        check(name, data)


def test_an_internal_error_would_be_noticed():
    error = {"code": -32603, "message": "internal error", "data": {"kind": "internal_error"}}
    with pytest.raises(Broken):
        check_answer(json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}))
