"""Nothing that others wrote is unpickled or evaluated: not by the code, and not in fact."""

import ast
import io
import pickle
import zipfile
from pathlib import Path

import numpy
import pytest
import torch

from learner import checkpoint, data, job, model_file, sources
from learner import messages as say
from learner.errors import LearnerError
from learner.peer import Learner

ROOT = Path(__file__).parents[2]
ROOMS = ("daemon", "overlay", "learner", "cli")
MODULES = {
    "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal",
    "multiprocessing.connection", "multiprocessing.managers", "jsonpickle", "yaml",
}  # fmt: skip
CALLS = {
    "torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "pandas.read_pickle",
    "torch.hub.load_state_dict_from_url", "numpy.fromregex", "eval", "exec", "compile",
    "builtins.eval", "builtins.exec", "__import__",
}  # fmt: skip


def offences(text):
    """What a module's text does that could run what somebody else wrote."""
    tree = ast.parse(text)
    names, found = {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
                found += _of_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += _of_module(node.module)
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                found += _of_module(f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
            dotted = _dotted(node, names)
            found += [dotted] if dotted in CALLS else []
        if isinstance(node, ast.Call) and _dotted(node.func, names) in ("numpy.load", "np.load"):
            found += [] if _never_pickles(node) else ["numpy.load"]
        if isinstance(node, ast.Call) and (called := _dotted(node.func, names)) is not None:
            literal = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
            if called in ("importlib.import_module", "getattr"):
                found += [name for word in literal for name in _of_module(str(word))]
    return found


def _of_module(name):
    return [known for known in MODULES if name == known or name.startswith(f"{known}.")]


def _dotted(node, names):
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value, names)) is not None:
        return f"{before}.{node.attr}"
    return None


def _never_pickles(call):
    given = {word.arg: word.value for word in call.keywords}
    allowed = given.get("allow_pickle")
    return isinstance(allowed, ast.Constant) and allowed.value is False


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_unpickles_or_evaluates(room):
    paths = sorted((ROOT / room).rglob("*.py"))
    assert paths
    found = {str(p.relative_to(ROOT)): bad for p in paths if (bad := offences(p.read_text()))}
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import os, pickle as p",
        "from pickle import loads",
        "def f():\n    import dill",
        "import shelve",
        "import marshal",
        "import importlib\nimportlib.import_module('pickle')",
        "import torch\ntorch.load('a')",
        "import torch as t\nt.save({}, 'a')",
        "from torch import load\nload('a')",
        "from torch import load as read\nread('a')",
        "import torch\nread = torch.load",
        "import numpy\nnumpy.load('a')",
        "import numpy as np\nnp.load('a', allow_pickle=True)",
        "import numpy as np\nx = True\nnp.load('a', allow_pickle=x)",
        "from numpy import load\nload('a')",
        "eval('1')",
        "exec('1')",
        "run = exec",
        "import builtins\nbuiltins.eval('1')",
        "__import__('os')",
    ],
)
def test_the_detector_sees_an_example_of_each(text):
    assert offences(text)


@pytest.mark.parametrize(
    "text",
    [
        "import numpy\nnumpy.load('a', allow_pickle=False)",
        "import json\njson.loads('1')",
        "import safetensors.torch\nsafetensors.torch.load(b'')",
        "import re\nre.compile('a')",
        "model.eval()",
        "'pickle'",
    ],
)
def test_the_detector_lets_pass_what_is_harmless(text):
    assert offences(text) == []


# In fact.


class Mine:
    """Unpickled, it makes a file."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


@pytest.fixture
def trace(tmp_path):
    return tmp_path / "it-ran"


@pytest.fixture
def pickles(trace):
    """The ways in which an evil file may be made."""
    plain = pickle.dumps(Mine(trace))
    saved = io.BytesIO()
    torch.save({"weight": Mine(trace)}, saved)
    old = io.BytesIO()
    torch.save({"weight": Mine(trace)}, old, _use_new_zipfile_serialization=False)
    return {"plain": plain, "torch": saved.getvalue(), "old torch": old.getvalue()}


KINDS = ("plain", "torch", "old torch")


def test_the_evil_file_would_do_its_work(pickles, trace):
    pickle.loads(pickles["plain"]).close()
    assert trace.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_file_that_is_a_pickle_is_refused_unread(pickles, trace, tmp_path, kind):
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickles[kind])
    with pytest.raises(LearnerError, match="is no whole safetensors file"):
        model_file.load(path, {"weight": torch.zeros(2)})
    assert not trace.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_that_is_a_pickle_is_passed_over(pickles, trace, tmp_path, kind):
    whole = checkpoint.Checkpoint(4, "job", "layout", {"x": torch.zeros(2)})
    checkpoint.save(tmp_path, whole)
    newest = checkpoint.save(tmp_path, whole)
    newest.write_bytes(pickles[kind])
    found, (warning,) = checkpoint.load_newest(tmp_path, job="job")
    assert found.round == 4
    assert f"{newest} is damaged" in warning
    assert not trace.exists()


def test_a_learner_starts_beside_checkpoints_that_are_pickles(configure, small_job, pickles, trace):
    command = configure(small_job, resume=True)
    folder = Path(command.checkpoint_dir)
    folder.mkdir(parents=True)
    for number, kind in enumerate(KINDS, start=1):
        (folder / f"checkpoint-{number:08d}.safetensors").write_bytes(pickles[kind])
    reply, _ = Learner().answer(command, bytearray())
    assert isinstance(reply, say.Configured)
    assert reply.round == 0
    assert not trace.exists()


@pytest.mark.parametrize("array", ["x", "y"])
def test_an_npz_source_with_objects_is_refused(trace, tmp_path, array):
    path = tmp_path / "data.npz"
    arrays = {"x": numpy.zeros((2, 2)), "y": numpy.arange(2)}
    arrays[array] = numpy.array([Mine(trace), Mine(trace)], dtype=object)
    numpy.savez(path, **arrays)
    with pytest.raises(LearnerError, match="without object arrays"):
        sources.read(f"npz:{path}", job.Data(), "")
    assert not trace.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_an_npz_source_that_is_a_pickle_is_refused(pickles, trace, tmp_path, kind):
    path = tmp_path / "data.npz"
    path.write_bytes(pickles[kind])
    with pytest.raises(LearnerError, match=r"data\.npz"):
        sources.read(f"npz:{path}", job.Data(), "")
    assert not trace.exists()


def test_a_pickle_inside_an_npz_is_no_array(pickles, trace, tmp_path):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", pickles["plain"])
        archive.writestr("y.npy", pickles["plain"])
    with pytest.raises(LearnerError, match="x must be numbers"):
        data.load(job.Data(f"npz:{path}"), "", "", 1)
    assert not trace.exists()
