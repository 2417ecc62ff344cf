"""A model from a file that anybody may have written, checked whole before any of it is used.

Rules kept here:
- safetensors only, a JSON header and raw numbers: nothing is ever unpickled;
- the header is compared with the model at hand before a value is read, so that what is read is as
  large as this model, whatever the file claims;
- every mismatch is listed at once, and values that are not finite are refused.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from learner.errors import LearnerError

# The header of 10,000 tensors takes about 1.5 MB.
MAX_HEADER_BYTES = 4 << 20
MAX_LISTED = 100
PREFIX_BYTES = 8
_CODES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip

# What a tensor is, of a file or of the model: its type's code and its shape.
Form = tuple[object, object]


def load(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the safetensors file `path`: names, shapes and dtypes are those of `expected`,
    a module's state_dict.

    Raises LearnerError: disk (it cannot be read), model (it is no safetensors file, or holds values
    that are not finite), layout (it is another model's).
    """
    try:
        with _opened(path) as file:
            data = _checked_bytes(file, path, expected)
    except OSError as error:
        raise LearnerError("disk", f"{path} cannot be read: {error.strerror or error}") from error
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _no_safetensors(path, str(error)) from error
    # The library reads the header with its own parser: what counts is what came out of it.
    _refuse_mismatches(path, {n: _form(t) for n, t in tensors.items()}, expected)
    _refuse_values(path, tensors, expected)
    return tensors


def _opened(path: Path) -> IO[bytes]:
    """The plain file there, opened without following a link or waiting for a pipe's writer."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise LearnerError("disk", f"{path}: there is no such file; check the path") from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise LearnerError(
            "disk", f"{path} is a symbolic link; name the file that it points to"
        ) from None
    file = os.fdopen(descriptor, "rb") if _is_plain(descriptor) else None
    if file is None:
        os.close(descriptor)
        raise LearnerError("disk", f"{path} is a folder or a device, not a safetensors file")
    return file


def _is_plain(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _checked_bytes(file: IO[bytes], path: Path, expected: Mapping[str, Tensor]) -> bytes:
    """The whole file, after its header and its size were found to be this model's."""
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(PREFIX_BYTES)
    claimed = int.from_bytes(prefix, "little")
    if len(prefix) < PREFIX_BYTES or claimed > size - PREFIX_BYTES:
        raise _no_safetensors(path, f"its {size} bytes begin with a header of {claimed}")
    if claimed > MAX_HEADER_BYTES:
        raise _no_safetensors(path, f"its header of {claimed} bytes is over {MAX_HEADER_BYTES}")
    head = file.read(claimed)
    _refuse_mismatches(path, _forms(head, path), expected)
    values = sum(tensor.nbytes for tensor in expected.values())
    if size != PREFIX_BYTES + claimed + values:
        found = size - PREFIX_BYTES - claimed
        raise _no_safetensors(path, f"it holds {found} bytes of values, not {values}")
    data = file.read(values)
    if len(data) != values:
        raise _no_safetensors(path, "it became shorter while it was read")
    return prefix + head + data


def _forms(head: bytes, path: Path) -> dict[str, Form]:
    """What the header says of each tensor."""
    try:
        table = json.loads(head)
    except (ValueError, RecursionError):
        raise _no_safetensors(path, "its header is not JSON") from None
    if not isinstance(table, dict):
        raise _no_safetensors(path, "its header is no table")
    return {name: _told(entry) for name, entry in table.items() if name != "__metadata__"}


def _told(entry: Any) -> Form:
    if not isinstance(entry, dict):
        return None, None
    shape = entry.get("shape")
    return entry.get("dtype"), tuple(shape) if isinstance(shape, list) else None


def _form(tensor: Tensor) -> Form:
    return _CODES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape)


def _refuse_mismatches(
    path: Path, found: Mapping[str, Form], expected: Mapping[str, Tensor]
) -> None:
    wanted = {name: _form(tensor) for name, tensor in expected.items()}
    wrong = [f"{name} is missing" for name in wanted if name not in found]
    wrong += [f"{name!r:.100} is not in this model" for name in found if name not in wanted]
    wrong += [
        f"{name} is {_shown(found[name])}, here {_shown(form)}"
        for name, form in wanted.items()
        if name in found and found[name] != form
    ]
    if not wrong:
        return
    more = f"; and {len(wrong) - MAX_LISTED} more" if len(wrong) > MAX_LISTED else ""
    raise LearnerError(
        "layout", f"{path} is not of the job's model: {'; '.join(wrong[:MAX_LISTED])}{more}"
    )


def _shown(form: Form) -> str:
    code, shape = form
    sizes = ", ".join(map(str, shape)) if isinstance(shape, tuple) else "?"
    return f"{code!s:.20} [{sizes:.100}]"


def _refuse_values(
    path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """What is summed up with the neighbours' models must be finite, and in float32."""
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    broken = [name for name, t in floats.items() if not bool(torch.isfinite(t.float()).all())]
    if broken:
        names = ", ".join(broken[:MAX_LISTED])
        raise LearnerError("model", f"{path} holds NaN, infinity or more than float32 in {names}")
    leaders: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in expected.items():
        leader = leaders.setdefault((tensor.data_ptr(), tensor.shape), name)
        if not torch.equal(tensors[leader], tensors[name]) and tensor.numel():
            raise LearnerError(
                "layout", f"{path}: {leader} and {name} are one tensor in the job's model, but two"
                " different ones there",
            )  # fmt: skip


def _no_safetensors(path: Path, reason: str) -> LearnerError:
    return LearnerError(
        "model", f"{path} is no whole safetensors file ({reason:.200}); pickled models (torch.save)"
        " are never read: write it with safetensors.torch.save_file",
    )  # fmt: skip
