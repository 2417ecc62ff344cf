"""Inputs for the fuzz targets, as hypothesis makes and shrinks them; the volume is
`benchmarks.fuzz`'s."""

import json

import msgpack
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from benchmarks.fuzz_targets import targets

# Always the same examples: a finding is kept as an @example.
quick = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

TARGETS = {target.name: target for target in targets()}

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=60)
)


def trees(more):
    """Nested lists and maps of leaves."""
    return st.recursive(
        leaves | more,
        lambda inner: (
            st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=30,
    )


msgpack_trees = trees(st.binary(max_size=100))
json_trees = trees(st.nothing())


@st.composite
def changed(draw, target):
    """A valid input of a target with some bytes changed, left out or doubled."""
    data = bytearray(draw(st.sampled_from(target.corpus)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        until = draw(st.integers(at, min(len(data), at + 40)))
        data[at:until] = draw(st.binary(max_size=8) | st.just(bytes(data[at:until]) * 2))
    return bytes(data)


@st.composite
def grafted(draw, target, branches):
    """A valid input of a target with one branch of its tree replaced."""
    is_json = target.form == "json"
    tree = draw(st.sampled_from(target.corpus))
    root = [json.loads(tree) if is_json else msgpack.unpackb(tree)]
    node = root
    while True:
        places = range(len(node)) if isinstance(node, list) else sorted(node)
        at = draw(st.sampled_from(places))
        if not (isinstance(node[at], (list, dict)) and node[at] and draw(st.booleans())):
            node[at] = draw(branches)
            return json.dumps(root[0]).encode() if is_json else msgpack.packb(root[0])
        node = node[at]


def inputs(name):
    """Everything that is tried on a target."""
    target = TARGETS[name]
    branches = json_trees if target.form == "json" else msgpack_trees
    pack = (lambda tree: json.dumps(tree).encode()) if target.form == "json" else msgpack.packb
    return (
        st.binary(max_size=400) | changed(target) | grafted(target, branches) | branches.map(pack)
    )


def check(name, data):
    """Try one. Raises for a finding."""
    trio.run(TARGETS[name].check, data)
