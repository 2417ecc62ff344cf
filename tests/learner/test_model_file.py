import json
import os
import struct

import pytest
import safetensors.torch
import torch
from torch import nn

from learner import checkpoint, model_file
from learner.errors import LearnerError


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def failure(path, model):
    with pytest.raises(LearnerError) as caught:
        model_file.load(path, model.state_dict())
    return caught.value.kind, caught.value.message


def written(path, model, **changes):
    """The model's file with some tensors changed, or left out where None."""
    tensors = {**model.state_dict(), **changes}
    safetensors.torch.save_file({n: t for n, t in tensors.items() if t is not None}, path)


def raw(path, header, values=b"", *, claimed=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = struct.pack("<Q", len(text) if claimed is None else claimed)
    path.write_bytes(size + text + values)


def test_what_was_exported_is_read_back(path, model):
    checkpoint.export(path, model)
    found = model_file.load(path, model.state_dict())
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], t) for name, t in model.state_dict().items())


def test_a_file_of_anybody_with_metadata_is_read(path, model):
    safetensors.torch.save_file(model.state_dict(), path, metadata={"format": "pt", "by": "me"})
    assert model_file.load(path, model.state_dict())


def test_every_mismatch_is_listed_at_once(path, model):
    written(
        path, model,
        **{
            "0.weight": torch.zeros(2, 4), "0.bias": None, "0.extra": torch.zeros(1),
            "1.weight": torch.zeros(2, dtype=torch.float16),
        },
    )  # fmt: skip
    kind, message = failure(path, model)
    assert kind == "layout"
    for part in (
        "0.weight is F32 [2, 4], here F32 [2, 3]", "0.bias is missing",
        "'0.extra' is not in this model", "1.weight is F16 [2], here F32 [2]",
    ):  # fmt: skip
        assert part in message


def test_a_file_of_a_thousand_foreign_names_is_not_told_whole(path, model):
    written(path, model, **{f"{i}" + "x" * 500: torch.zeros(1) for i in range(1000)})
    _, message = failure(path, model)
    assert "and 900 more" in message
    assert len(message) < 20_000


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(path, model, value):
    written(path, model, **{"0.bias": torch.tensor([1.0, value])})
    kind, message = failure(path, model)
    assert kind == "model"
    assert "holds NaN, infinity or more than float32 in 0.bias" in message


def test_doubles_that_float32_cannot_hold_are_refused(path):
    double = nn.Linear(1, 1, bias=False).double()
    written(path, double, weight=torch.tensor([[1e300]], dtype=torch.float64))
    assert "more than float32 in weight" in failure(path, double)[1]


def test_tied_tensors_must_be_alike(path):
    tied = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    tied["b"].weight = tied["a"].weight
    checkpoint.export(path, tied)
    assert model_file.load(path, tied.state_dict())
    written(path, tied, **{"a.weight": torch.zeros(2, 2), "b.weight": torch.ones(2, 2)})
    assert "a.weight and b.weight are one tensor" in failure(path, tied)[1]


@pytest.mark.parametrize("claimed", [1 << 40, (1 << 64) - 1, 1 << 63, 10_000])
def test_a_header_that_claims_too_much_is_refused_before_anything_is_read(
    path, model, claimed, monkeypatch
):
    raw(path, {}, b"x" * 100, claimed=claimed)
    reads = []
    opened = model_file._opened

    def watched(path):
        file = opened(path)
        read = file.read
        monkeypatch.setattr(model_file, "_opened", opened)

        class Watched:
            fileno = file.fileno

            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def read(self, size):
                reads.append(size)
                return read(size)

        return Watched()

    monkeypatch.setattr(model_file, "_opened", watched)
    kind, message = failure(path, model)
    assert kind == "model"
    assert f"begin with a header of {claimed}" in message
    assert reads == [8]


def test_a_sparse_terabyte_with_a_long_header_is_refused_at_once(path, model):
    raw(path, {}, claimed=1 << 39)
    os.truncate(path, 1 << 40)
    assert f"its header of {1 << 39} bytes is over" in failure(path, model)[1]


def test_a_sparse_terabyte_of_values_is_refused_at_once(path, model):
    written(path, model)
    os.truncate(path, 1 << 40)
    assert "bytes of values, not" in failure(path, model)[1]


def test_a_tensor_that_claims_a_terabyte_is_another_models(path, model):
    entry = {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}
    raw(path, {"0.weight": entry})
    kind, message = failure(path, model)
    assert kind == "layout"
    assert f"0.weight is F32 [{1 << 38}], here F32 [2, 3]" in message


@pytest.mark.parametrize(
    "header",
    [
        b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000,
        {"0.weight": 3}, {"0.weight": None}, {"0.weight": {"shape": "x"}}, {"__metadata__": 3},
        {"0.weight": {"dtype": ["F32"], "shape": [[]]}},
    ],
)  # fmt: skip
def test_a_header_that_is_none_is_refused(path, model, header):
    raw(path, header)
    assert failure(path, model)[0] in ("model", "layout")


@pytest.mark.parametrize("offsets", [[0, 4], [4, 8], [8, 0], [-4, 4], [0.0, 8.0], ["0", "8"], None])
def test_offsets_that_lie_are_refused(path, offsets):
    model = nn.Linear(2, 1, bias=False)
    entry = {"dtype": "F32", "shape": [1, 2], "data_offsets": offsets}
    raw(path, {"weight": entry}, bytes(8))
    assert failure(path, model)[0] == "model"


def test_overlapping_tensors_are_refused(path):
    model = nn.Linear(1, 1)
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    raw(path, {"weight": {**entry, "shape": [1, 1]}, "bias": entry}, bytes(8))
    assert failure(path, model)[0] == "model"


def test_a_name_given_twice_counts_once_for_both_readers_or_not_at_all(path):
    model = nn.Linear(1, 1, bias=False)
    good = '"weight":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}'
    other = '"weight":{"dtype":"I32","shape":[1,1],"data_offsets":[0,4]}'
    for header in (f"{{{good},{other}}}", f"{{{other},{good}}}"):
        raw(path, header.encode(), bytes(4))
        try:
            found = model_file.load(path, model.state_dict())
        except LearnerError:
            continue
        assert found["weight"].dtype == torch.float32


@pytest.mark.parametrize("size", [0, 1, 7, 8])
def test_a_file_that_is_too_short_is_refused(path, model, size):
    path.write_bytes(bytes(size))
    assert failure(path, model)[0] == "model"


def test_a_file_that_was_cut_is_refused(path, model):
    checkpoint.export(path, model)
    os.truncate(path, path.stat().st_size - 1)
    assert "bytes of values" in failure(path, model)[1]


def test_what_is_no_plain_file_is_refused_with_the_reason(tmp_path, path, model):
    checkpoint.export(path, model)
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(path)
    os.mkfifo(pipe)
    for what, reason in (
        (tmp_path / "none", "there is no such file"),
        (link, "is a symbolic link"),
        (tmp_path, "is a folder or a device"),
        (pipe, "is a folder or a device"),
        (path / "below", "cannot be read: Not a directory"),
    ):
        kind, message = failure(what, model)
        assert (kind, reason in message) == ("disk", True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(path, model):
    checkpoint.export(path, model)
    path.chmod(0)
    assert "cannot be read: Permission denied" in failure(path, model)[1]
