"""Where data comes from: one reader per kind of source, found in a small table.

Rules kept here:
- a reader returns arrays as they lie on disk; checking and splitting are `data`'s business;
- nothing is downloaded unless the job allows it, and nothing is unpickled;
- a missing path, an empty class and an unreadable file are LearnerErrors that say what to do.
"""

from __future__ import annotations

import importlib.util
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch

from learner import code, job, vision
from learner.errors import LearnerError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081


@dataclass(frozen=True, slots=True)
class Raw:
    """Arrays or tensors as read. Without test samples, a share is held out of x and y: the
    source's own fixed one where `holdout` is given, else the job's."""

    x: Any
    y: Any
    x_test: Any = None
    y_test: Any = None
    holdout: float | None = None
    names: tuple[str, ...] = ()


def read(source: str, data: job.Data, data_dir: str) -> Raw:
    """The arrays of `source` (see `job.Data.source`). Raises LearnerError (data)."""
    kind, _, path = source.partition(":")
    if source == "digits":
        return _digits()
    if source == "two-moons":
        return _two_moons(data.options)
    if source == "mnist":
        return _mnist(data_dir, download=data.download)
    if kind == "npz":
        return _npz(Path(path).expanduser())
    if kind == "folder":
        return _folder(Path(path).expanduser(), size=data.image_size, names=data.classes)
    if job.is_code_reference(source):
        return _code(source, data.options)
    raise LearnerError("data", job.check_source(source) or f"{source!r} is no data source")


def _digits() -> Raw:
    """The 1,797 8x8 digits that scikit-learn embeds (Alpaydin & Kaynak, UCI 1998).

    The split is fixed (360 held out), so that accuracies of different jobs can be compared.
    """
    table = _digits_table()
    pixels = table[:, :-1].reshape(-1, 1, 8, 8).astype(numpy.float32) / 16
    return Raw(pixels, table[:, -1].astype(numpy.int64), holdout=0.2)


def _two_moons(options: dict[str, Any]) -> Raw:
    """Two interleaved half circles for each of `peers` peers, one after the other (partition
    contiguous gives each its own): scikit-learn's make_moons with `random_state` = the peer's
    number, and a test set of its own seed."""
    from sklearn.datasets import make_moons

    wanted = {"peers": 6, "samples": 128, "noise": 0.1, "test_samples": 20, "test_seed": 42}
    if unknown := options.keys() - wanted.keys():
        raise LearnerError(
            "data", f"data.options: two-moons has no {', '.join(sorted(unknown))};"
            f" known: {', '.join(wanted)}",
        )  # fmt: skip
    chosen = {**wanted, **options}
    try:
        moons = [
            make_moons(chosen["samples"], noise=chosen["noise"], random_state=peer)
            for peer in range(chosen["peers"])
        ]
        x_test, y_test = make_moons(
            chosen["test_samples"], noise=chosen["noise"], random_state=chosen["test_seed"]
        )
    except (TypeError, ValueError) as error:
        raise LearnerError("data", f"data.options: two-moons cannot be made: {error}") from error
    x, y = (numpy.concatenate(column) for column in zip(*moons, strict=True))
    return Raw(x, y, x_test, y_test)


def _digits_table() -> Any:
    """float64 [1797, 65]: 64 pixels and the label, as `sklearn.datasets.load_digits` reads it.

    Importing scikit-learn takes 1.7 s of CPU, so its file is read without it where it lies where
    it always lay.
    """
    found = importlib.util.find_spec("sklearn")
    folders = list(found.submodule_search_locations or []) if found is not None else []
    for folder in folders:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return numpy.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return numpy.column_stack([bunch.data, bunch.target])


def _mnist(data_dir: str, *, download: bool) -> Raw:
    datasets = vision.torchvision().datasets
    root = Path(data_dir or ".").expanduser()
    try:
        train = datasets.MNIST(root, train=True, download=download)
        test = datasets.MNIST(root, train=False, download=download)
    except Exception as error:
        looked = (root / "MNIST" / "raw").absolute()
        advice = "check the network, or" if download else "set data.download = true, or"
        raise LearnerError(
            "data", f"mnist could not be read from {looked} ({error}); {advice} lay the four"
            " idx-ubyte files there",
        ) from error  # fmt: skip
    return Raw(_mnist_pixels(train.data), train.targets, _mnist_pixels(test.data), test.targets)


def _mnist_pixels(pixels: torch.Tensor) -> torch.Tensor:
    return ((pixels.float() / 255 - MNIST_MEAN) / MNIST_STD).unsqueeze(1)


def _npz(path: Path) -> Raw:
    """Arrays x, y, and optionally x_test, y_test."""
    try:
        # Opened here, because numpy leaves a file that is no archive open.
        with path.open("rb") as file, numpy.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise LearnerError("data", f"{path}: there is no such file; check the path") from None
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise LearnerError(
            "data", f"{path} is not a readable .npz file of plain arrays ({error}); write it with"
            " numpy.savez(path, x=…, y=…), without object arrays",
        ) from error  # fmt: skip
    missing = {"x", "y"} - arrays.keys()
    if arrays.keys() & {"x_test", "y_test"}:
        missing |= {"x_test", "y_test"} - arrays.keys()
    if missing:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise LearnerError(
            "data", f"{path}: there is no array {', '.join(sorted(missing))} in it (found: {found})"
        )
    return Raw(arrays["x"], arrays["y"], arrays.get("x_test"), arrays.get("y_test"))


def _code(reference: str, options: dict[str, Any]) -> Raw:
    factory = code.load(reference, kind="data")
    try:
        made = factory(**options)
    except Exception as error:
        raise LearnerError(
            "data", f"{reference}() raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, (tuple, list)) or len(made) not in (2, 4):
        raise LearnerError(
            "data", f"{reference}() must return (x, y) or (x, y, x_test, y_test), not {made!r:.80}"
        )
    return Raw(*made)


def _folder(path: Path, *, size: int, names: tuple[str, ...]) -> Raw:
    """A folder of images per class, or train/ and test/ each holding one.

    `names` are the job's classes; without them the class folders found are the classes.
    """
    if not path.is_dir():
        raise LearnerError("data", f"{path}: there is no such folder; check the path")
    _refuse_paths(names)
    if not (path / "train").is_dir() or not (path / "test").is_dir():
        classes = names or _class_names(path)
        _refuse_unknown(path, classes)
        return Raw(*_images(path, classes, size), names=classes)
    classes = names or _class_names(path / "train")
    for part in (path / "train", path / "test"):
        _refuse_unknown(part, classes)
    x, y = _images(path / "train", classes, size)
    x_test, y_test = _images(path / "test", classes, size)
    return Raw(x, y, x_test, y_test, names=classes)


def _class_folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and entry.name[0] != ".")


def _class_names(path: Path) -> tuple[str, ...]:
    names = _class_folders(path)
    if len(names) < 2:
        raise LearnerError(
            "data", f"{path}: a folder per class is needed (at least two), found {len(names)};"
            " where an owner has fewer, name them all in the job's data.classes",
        )  # fmt: skip
    return tuple(names)


def _refuse_paths(names: tuple[str, ...]) -> None:
    """The job's classes may be anybody's, and shall lead nowhere but into the owner's folder."""
    astray = [
        n for n in names if n in ("", ".", "..") or not n.isprintable() or {"/", "\\"} & set(n)
    ]
    if astray:
        raise LearnerError(
            "data", f"data.classes: {', '.join(map(repr, astray))} cannot be the name of a class"
            " folder; write plain names",
        )  # fmt: skip


def _refuse_unknown(path: Path, classes: tuple[str, ...]) -> None:
    if extra := set(_class_folders(path)) - set(classes):
        raise LearnerError(
            "data", f"{path}: {', '.join(sorted(extra))} is none of the classes"
            f" {', '.join(classes)}; name the class folders alike everywhere",
        )  # fmt: skip


def _images(path: Path, names: tuple[str, ...], size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x uint8 [n, 3, size, size] and y int64 [n]; a class is numbered by its name's place."""
    files, labels = [], []
    for label, name in enumerate(names):
        if not (path / name).is_dir():
            continue  # a test set or an owner may lack a class
        found = sorted(f for f in (path / name).rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise LearnerError(
                "data", f"{path / name}: there are no images of this class; add some, or remove"
                f" the folder (known endings: {', '.join(IMAGE_SUFFIXES)})",
            )  # fmt: skip
        files += found
        labels += [label] * len(found)
    if not files:
        raise LearnerError("data", f"{path}: there is no folder of any class; check the path")
    pixels = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    for row, file in zip(pixels, files, strict=True):
        row.copy_(_image(file, size))
    return pixels, torch.tensor(labels)


def _image(path: Path, size: int) -> torch.Tensor:
    """uint8 [3, size, size]. Always colour, so that every owner's folder gives one shape."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise LearnerError(
            "data", f"{path} is not a readable image ({error}); repair or remove it"
        ) from error
    return torch.from_numpy(numpy.array(small)).permute(2, 0, 1)
