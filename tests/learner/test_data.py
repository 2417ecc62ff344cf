import gzip

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from learner import data, sources
from learner.errors import LearnerError
from learner.job import Data

MADE = {}


def made():
    """A data source that a test fills in: `MADE['value']`, or it raises."""
    return MADE["value"]


@pytest.fixture
def source(monkeypatch):
    """source(*arrays): a code reference to a factory that returns them."""

    def make(*arrays):
        monkeypatch.setitem(MADE, "value", arrays)
        return f"{__name__}:made"

    return make


@pytest.fixture
def images(tmp_path):
    """images(folder, counts): a folder per class with so many gray images."""

    def make(folder, counts):
        for name, count in counts.items():
            (tmp_path / folder / name).mkdir(parents=True)
            for i in range(count):
                Image.new("L", (5, 9), 10 * i).save(tmp_path / folder / name / f"{i}.png")
        return tmp_path / folder

    return make


def load(source, seed=1, data_dir="", **options):
    return data.load(Data(**options), source, str(data_dir), seed)


def failure(source, **options):
    with pytest.raises(LearnerError) as caught:
        load(source, **options)
    assert caught.value.kind == "data"
    return caught.value.message


def test_digits_are_images_in_the_unit_interval_with_360_held_out():
    digits = load("digits")
    assert (len(digits.y_train), len(digits.y_test), digits.classes) == (1437, 360, 10)
    assert (digits.input_shape, digits.x_train.dtype) == ((1, 8, 8), torch.float32)
    assert (float(digits.x_train.min()), float(digits.x_train.max())) == (0, 1)
    assert set(torch.bincount(digits.y_test).tolist()) <= {35, 36, 37}


def test_the_split_of_the_digits_is_the_same_for_every_seed():
    assert torch.equal(load("digits", seed=1).x_test, load("digits", seed=2).x_test)


def test_the_jobs_source_is_used_unless_the_peer_names_its_own(source):
    x, y = np.zeros((10, 3)), np.arange(10) % 2
    assert data.load(Data("digits"), source(x, y), "", 1).input_shape == (3,)
    assert data.load(Data("digits"), "", "", 1).input_shape == (1, 8, 8)


def test_a_held_out_share_is_stratified_and_nothing_is_in_both_halves(source):
    x, y = np.arange(100.0)[:, None], np.repeat([0, 1, 2], [70, 20, 10])
    both = load(source(x, y), holdout=0.25)
    assert torch.bincount(both.y_test).tolist() == [18, 5, 2]
    every = torch.cat([both.x_train, both.x_test]).flatten().sort().values
    assert every.tolist() == list(range(100))
    other = load(source(x, y), holdout=0.25, seed=2)
    assert not torch.equal(both.x_test, other.x_test)


def test_a_class_keeps_a_sample_to_train_on(source):
    both = load(source(np.zeros((5, 2)), np.array([0, 0, 0, 0, 1])), holdout=0.9)
    assert set(both.y_train.tolist()) == {0, 1}


def test_test_samples_of_the_source_are_used(source):
    x, y = torch.zeros(4, 3), torch.tensor([0, 1, 0, 1])
    both = load(source(x, y, x[:2], torch.tensor([1, 2])))
    assert (len(both.y_train), len(both.y_test), both.classes) == (4, 2, 3)


@pytest.mark.parametrize(
    ("x", "shape"),
    [
        (np.zeros((6, 4), np.int32), (4,)),
        (np.zeros((6, 4, 5), np.float64), (1, 4, 5)),
        (np.zeros((6, 3, 4, 5), ">f4"), (3, 4, 5)),
        (torch.zeros(6, 2, dtype=torch.float16), (2,)),
    ],
)
def test_inputs_become_float32_and_images_get_a_channel(source, x, shape):
    both = load(source(x, np.arange(6) % 2))
    assert (both.x_train.dtype, both.input_shape) == (torch.float32, shape)


def test_bytes_are_pixels(source):
    x = np.full((6, 4), 255, np.uint8)
    assert float(load(source(x, np.arange(6, dtype=np.uint16) % 2)).x_train.max()) == 1


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 2)), np.array([0, 1, 0.5, 1]), "whole class numbers"),
        (np.zeros((4, 2)), np.array([0, 1, np.inf, 1]), "whole class numbers"),
        ([[1], [1, 2]], np.zeros(2), "x is not an array"),
        (np.zeros((4, 2)), np.array(["a", "b", "a", "b"]), "y must be numbers"),
        (np.zeros((4, 2)), np.array([0, 1, -1, 1]), "number the classes from 0"),
        (np.zeros((4, 2)), np.zeros((4, 1)), r"y must be \[n\]"),
        (np.zeros((4, 2)), np.zeros(3), "4 samples, y has 3"),
        (np.zeros((4, 2)), np.zeros(4), "at least two classes"),
        (np.zeros((2, 2)), np.array([0, 1]), "too few"),
        (np.zeros(4), np.zeros(4), "x must be"),
        (np.zeros((0, 4)), np.zeros(0), "at least one sample"),
        (np.array([[0, np.nan]] * 4), np.array([0, 1, 0, 1]), "4 of 4 samples hold NaN"),
    ],
)
def test_what_cannot_be_learnt_from_says_why(source, x, y, message):
    with pytest.raises(LearnerError, match=message):
        load(source(x, y))


def test_test_samples_of_another_shape_are_refused(source):
    x, y = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    assert "the same shape" in failure(source(x, y, np.zeros((4, 3)), y))


def test_a_factory_that_raises_or_returns_something_else_is_explained(source, monkeypatch):
    assert "must return (x, y)" in failure(source(1, 2, 3))
    monkeypatch.delitem(MADE, "value")
    assert "raised KeyError" in failure(f"{__name__}:made")


def test_an_npz_file_is_read(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((10, 2)), y=np.arange(10) % 5)
    assert load(f"npz:{tmp_path}/a.npz", holdout=0.5).classes == 5


def test_npz_mistakes_say_what_to_do(tmp_path):
    path = tmp_path / "a.npz"
    assert "check the path" in failure(f"npz:{path}")
    path.write_bytes(b"")
    assert "not a readable .npz" in failure(f"npz:{path}")
    path.write_bytes(b"PK\3\4 but no more")
    assert "not a readable .npz" in failure(f"npz:{path}")
    np.savez(path, x=np.array([{}], dtype=object), y=np.zeros(1))
    assert "object arrays" in failure(f"npz:{path}")
    np.savez(path, x=np.zeros((2, 2)))
    assert "no array y" in failure(f"npz:{path}")
    np.savez(path, x=np.zeros((2, 2)), y=np.zeros(2), x_test=np.zeros((2, 2)))
    assert "no array y_test" in failure(f"npz:{path}")
    np.save(tmp_path / "b.npy", np.zeros(3))
    assert "not a readable .npz" in failure(f"npz:{tmp_path}/b.npy")


def test_a_folder_of_images_is_resized_colour_with_classes_in_name_order(images):
    path = images("scans", {"b": 6, "a": 4})
    (path / "notes.txt").write_text("not an image")
    (path / "a" / "Thumbs.db").write_text("not an image")
    both = load(f"folder:{path}", image_size=8, holdout=0.5)
    assert both.input_shape == (3, 8, 8)
    assert torch.bincount(both.y_train).tolist() == [2, 3]
    assert 0 <= float(both.x_train.min()) <= float(both.x_train.max()) <= 50 / 255


def test_train_and_test_folders_are_used_as_they_are(images):
    images("s/train", {"a": 3, "b": 2, "c": 1})
    path = images("s/test", {"c": 2}).parent
    (path / "test" / "b").mkdir()
    Image.new("RGB", (4, 4)).save(path / "test" / "b" / "x.JPG", "jpeg")
    both = load(f"folder:{path}")
    assert (both.y_train.tolist(), both.y_test.tolist()) == ([0, 0, 0, 1, 1, 2], [1, 2, 2])


def test_folder_mistakes_say_what_to_do(images, tmp_path):
    assert "no such folder" in failure(f"folder:{tmp_path}/none")
    assert "at least two" in failure(f"folder:{images('one', {'a': 1})}")
    assert "no images of this class" in failure(f"folder:{images('two', {'a': 1, 'b': 0})}")
    path = images("three", {"a": 2, "b": 2})
    (path / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "broken.png is not a readable image" in failure(f"folder:{path}")
    images("four/train", {"a": 1, "b": 1})
    path = images("four/test", {"a": 1, "z": 1}).parent
    assert "z is none of the classes a, b" in failure(f"folder:{path}")


def test_named_classes_number_every_owners_folder_alike(images):
    classes = ("cat", "dog", "zebra")
    one = load(f"folder:{images('one', {'cat': 4, 'dog': 4})}", classes=classes)
    two = load(f"folder:{images('two', {'dog': 4, 'zebra': 4})}", classes=classes)
    assert (one.classes, two.classes) == (3, 3)
    assert set(one.y_train.tolist()) == {0, 1}
    assert set(two.y_train.tolist()) == {1, 2}
    assert one.class_names == two.class_names == classes
    path = images("three", {"dog": 2, "horse": 2})
    assert "horse is none of the classes" in failure(f"folder:{path}", classes=classes)
    assert "has no name" in failure("digits", classes=classes)


def test_the_embedded_digits_are_scikit_learns():
    bunch = load_digits()
    table = sources._digits_table()
    assert np.array_equal(table[:, :-1], bunch.data)
    assert np.array_equal(table[:, -1], bunch.target)


def test_absent_mnist_says_where_it_was_looked_for(tmp_path):
    message = failure("mnist", data_dir=tmp_path)
    assert f"{tmp_path}/MNIST/raw" in message
    assert "data.download = true" in message


def test_mnist_files_are_normalised(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, count in (("train", 20), ("t10k", 10)):
        pixels = np.zeros((count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            name = raw / f"{stem}-{kind}-ubyte"
            name.write_bytes(head + array.tobytes())
            name.with_suffix(".gz").write_bytes(gzip.compress(name.read_bytes()))
    both = load("mnist", data_dir=tmp_path)
    assert (both.input_shape, len(both.y_train), len(both.y_test)) == ((1, 28, 28), 20, 10)
    assert both.x_train[0, 0, 0, 0] == pytest.approx(-0.1307 / 0.3081)


def test_an_unknown_source_is_refused():
    assert "no data source" in failure("cifar")


@pytest.mark.parametrize("name", ["../secret", "/tmp", "..", ".", "", "a/b", "a\\b", "a\0b", "a\n"])
def test_a_class_name_of_the_job_leads_nowhere_but_into_the_folder(images, name):
    images("secret", {"x": 2})
    path = images("mine", {"a": 4, "b": 4})
    message = failure(f"folder:{path}", classes=("a", "b", name))
    assert "cannot be the name of a class folder" in message
