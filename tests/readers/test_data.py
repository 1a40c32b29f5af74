"""Data sets: what is read, and an error of one line for every bad input."""

from __future__ import annotations

import gzip
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mipnet.errors import DataError
from mipnet.readers import image_sources
from mipnet.readers.data import Dataset, load, select

PIXELS = np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 28, 28)
LABELS = np.array([3, 0, 9, 3], dtype=np.uint8)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.tobytes()


def publish(folder: Path, *, prefix: str = "train", zipped: bool = True, pixels: bytes = idx(PIXELS), labels: bytes = idx(LABELS)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, content in ((f"{prefix}-images-idx3-ubyte", pixels), (f"{prefix}-labels-idx1-ubyte", labels)):
        (folder / (stem + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    return folder


class TestDigits:
    def test_splits_are_disjoint_stratified_and_complete(self) -> None:
        train, test = load("digits"), load("digits", split="test")
        assert len(train) + len(test) == 1797
        np.testing.assert_allclose(np.bincount(test.labels) / np.bincount(train.labels), 0.25, atol=0.01)
        rows = {row.tobytes() for row in train.images}
        assert not any(row.tobytes() in rows for row in test.images)

    def test_pixels_are_scaled_to_the_unit_interval(self) -> None:
        images = load("digits").images
        assert images.dtype == np.float64
        assert (images.min(), images.max()) == (0.0, 1.0)

    def test_the_split_never_changes(self) -> None:
        test = load("digits", split="test")
        assert (len(test), float(test.images.sum())) == (359, 7044.9375)

    def test_an_image_takes_the_shape_asked_for(self) -> None:
        flat, square = load("digits", shape=(64,)), load("digits", shape=(1, 8, 8))
        assert square.shape == (1, 8, 8)
        np.testing.assert_array_equal(square.images.reshape(-1, 64), flat.images)

    def test_a_shape_of_another_size_is_an_error(self) -> None:
        with pytest.raises(DataError, match=r"shape \(64,\), which cannot be reshaped to \(1, 28, 28\)"):
            load("digits", shape=(1, 28, 28))


class TestPublished:
    @pytest.mark.parametrize("folder", [".", "MNIST/raw", "mnist"])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_mnist_is_found_where_people_keep_it(self, tmp_path: Path, folder: str, zipped: bool) -> None:
        publish(tmp_path / folder, zipped=zipped)
        found = load("mnist", root=tmp_path)
        np.testing.assert_array_equal(found.images[:, 0], PIXELS / 255)
        assert found.labels.tolist() == [3, 0, 9, 3]
        assert (found.classes, found.shape) == (10, (1, 28, 28))

    def test_each_source_and_split_has_its_own_files(self, tmp_path: Path) -> None:
        publish(tmp_path / "FashionMNIST/raw", pixels=idx(PIXELS[:2]), labels=idx(LABELS[:2]))
        publish(tmp_path / "mnist", prefix="t10k")
        assert len(load("fashion-mnist", root=tmp_path)) == 2
        assert len(load("mnist", root=tmp_path, split="test", shape=(784,))) == 4

    def test_the_environment_names_the_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        publish(tmp_path)
        monkeypatch.setenv(image_sources.DATA_ROOT_VARIABLE, str(tmp_path))
        assert len(load("mnist")) == 4

    def test_without_a_folder_the_message_names_the_remedy(self) -> None:
        with pytest.raises(DataError, match="set `root`, or the environment variable MIPNET_DATA"):
            load("mnist")

    def test_a_missing_file_is_reported_with_the_places_looked_at(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte.* looked in .*MNIST/raw, .*mnist"):
            load("mnist", root=tmp_path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"pixels": idx(PIXELS)[:-1]}, "is cut off: it has 3151 bytes, and its header says 3152"),
            ({"pixels": idx(PIXELS)[:7]}, "is cut off|begins with"),
            ({"pixels": idx(PIXELS) + b"x"}, "is too long"),
            ({"pixels": b""}, r"begins with the bytes \(none\)"),
            ({"pixels": b"\x00\x00\x0d\x03" + idx(PIXELS)[4:]}, "begins with the bytes 00 00 0d 03; expected 00 00 08 03"),
            ({"pixels": idx(LABELS)}, "begins with the bytes 00 00 08 01"),
            ({"labels": idx(LABELS[:3])}, "expected .* with the same n"),
            ({"labels": idx(LABELS + 1)}, "label 10 of sample 2 of `mnist` is not a class; expected a whole number from 0 to 9"),
        ],
    )
    def test_a_broken_file_is_an_error(self, tmp_path: Path, change: dict[str, bytes], message: str) -> None:
        publish(tmp_path, **change)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=message):
            load("mnist", root=tmp_path)

    def test_a_broken_gzip_file_is_an_error(self, tmp_path: Path) -> None:
        path = publish(tmp_path) / "train-images-idx3-ubyte.gz"
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(DataError, match=r"cannot be read .* fetch it again"):
            load("mnist", root=tmp_path)


class TestOwnFiles:
    def test_npz_with_the_names_of_others(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "all.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:1], y_test=LABELS[:1])
        names = {"file": "all.npz", "names": ("x_{split}", "y_{split}")}
        train, test = load("npz", tmp_path, **names), load("npz", tmp_path, "test", **names)
        assert (len(train), len(test), train.classes) == (4, 1, 10)
        np.testing.assert_array_equal(train.images, PIXELS / 255)

    def test_floating_point_pixels_stay_unless_a_scale_is_given(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", images=PIXELS / 2.0, labels=LABELS.astype(float))
        np.testing.assert_array_equal(load("npz", file=tmp_path / "a.npz").images, PIXELS / 2.0)
        np.testing.assert_array_equal(load("npz", file=tmp_path / "a.npz", scale=2).images, PIXELS / 4.0)

    def test_idx_pair(self, tmp_path: Path) -> None:
        publish(tmp_path)
        found = load("idx", tmp_path, names=("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"))
        assert (len(found), found.classes, replace(found, classes=12).classes, found.name) == (4, 10, 12, "idx")
        with pytest.raises(DataError, match="label 9 of sample 2 of `idx` is not a class"):
            replace(found, classes=5)

    def test_a_single_set_of_images_is_no_test_split(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", images=PIXELS, labels=LABELS)
        with pytest.raises(DataError, match=r"for a test split write \{split\}"):
            load("npz", tmp_path, "test", file="a.npz")

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"images": PIXELS}, "has no array `labels`; it has images"),
            ({"images": PIXELS, "labels": LABELS + 0.5}, "label 3.5 of sample 0"),
            ({"images": PIXELS, "labels": np.array([0, 1, -1, 2])}, "label -1 of sample 2"),
            ({"images": PIXELS, "labels": np.array([0, 1, np.nan, 2])}, "label nan of sample 2"),
            ({"images": PIXELS, "labels": np.array(list("abcd"))}, "are of type <U1; expected whole|is of type"),
            ({"images": np.full((4, 2), np.nan), "labels": LABELS}, "hold 8 NaN or infinite pixels"),
            ({"images": PIXELS.astype(np.int32), "labels": LABELS}, "or a `scale`"),
            ({"images": np.zeros(4), "labels": LABELS}, r"images of shape \(4,\)"),
            ({"images": PIXELS[:0], "labels": LABELS[:0]}, "n >= 1"),
            ({"images": np.array([{}] * 4, dtype=object), "labels": LABELS}, "not an .npz file of plain arrays"),
        ],
    )
    def test_bad_arrays_are_errors(self, tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(DataError, match=message):
            load("npz", tmp_path, file="a.npz")

    @pytest.mark.parametrize("content", [b"", b"no zip file", b"PK\x03\x04 cut"])
    def test_what_is_no_npz_file_is_an_error(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"not an \.npz file"):
            load("npz", tmp_path, file="a.npz")

    def test_one_bare_array_is_no_npz_file(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", PIXELS)
        with pytest.raises(DataError, match=r"not an \.npz file"):
            load("npz", tmp_path, file="a.npy")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"source": "cifar"}, "the data source is `cifar`; expected one of digits, mnist"),
            ({"source": "digits", "split": "val"}, "the split is `val`; expected one of train, test"),
            ({"source": "npz"}, "needs `file`"),
            ({"source": "npz", "file": "absent.npz"}, "no file `absent.npz`"),
            ({"source": "idx"}, "needs `names`, the paths of two IDX files"),
            ({"source": "idx", "names": ("absent", "absent")}, "no file `absent`"),
        ],
    )
    def test_bad_arguments_are_errors(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            load(**arguments)

    def test_a_scale_is_positive(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", images=PIXELS, labels=LABELS)
        with pytest.raises(DataError, match="the scale is 0"):
            load("npz", tmp_path, file="a.npz", scale=0)

    @pytest.mark.parametrize("bad", ["images", "labels"])
    def test_every_message_is_one_line(self, tmp_path: Path, bad: str) -> None:
        np.savez(tmp_path / "a.npz", **{"images": PIXELS, "labels": LABELS, bad: np.array([{"a": "b\nc"}] * 4, dtype=object)})
        with pytest.raises(DataError) as caught:
            load("npz", tmp_path, file="a.npz")
        assert "\n" not in str(caught.value)


class TestSelect:
    sample = Dataset(np.arange(6.0).reshape(6, 1), np.array([1, 0, 1, 0, 1, 0]), "six", 2)
    scores = np.array([0.9, 0.2, 0.8, 0.3, 0.7, 0.4])

    def picked(self, **arguments: Any) -> list[int]:
        return [int(value) for value in select(self.sample, **arguments).images[:, 0]]

    def test_first(self) -> None:
        assert self.picked(per_class=2) == [1, 3, 0, 2]
        assert self.picked(total=2) == [0, 1]
        assert self.picked() == [0, 1, 2, 3, 4, 5]

    def test_confident_and_uncertain_follow_the_scores(self) -> None:
        assert self.picked(per_class=1, pick="confident", scores=self.scores) == [5, 0]
        assert self.picked(per_class=1, pick="uncertain", scores=self.scores) == [1, 4]
        assert self.picked(total=2, pick="uncertain", scores=self.scores) == [1, 3]

    def test_random_depends_on_the_seed_alone(self) -> None:
        drawn = [tuple(self.picked(total=3, pick="random", seed=seed)) for seed in range(20)]
        assert drawn[0] == tuple(self.picked(total=3, pick="random", seed=0))
        assert len(set(drawn)) > 1

    def test_labels_go_with_their_images(self) -> None:
        found = select(load("digits"), per_class=2, pick="random", seed=1)
        assert found.labels.tolist() == [label for label in range(10) for _ in range(2)]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"per_class": 1, "total": 1}, "both given"),
            ({"per_class": 0}, "0 samples are asked for"),
            ({"per_class": 4}, "class 0 of `six` has 3 samples; 4 are asked for"),
            ({"total": 7}, "`six` has 6 samples; 7"),
            ({"pick": "best"}, "`pick` is `best`; expected one of first, random"),
            ({"pick": "confident"}, "needs `scores`"),
            ({"pick": "confident", "scores": np.ones(3)}, r"shape \(3,\); expected \(6,\)"),
            ({"pick": "uncertain", "scores": np.full(6, np.nan)}, "finite"),
        ],
    )
    def test_bad_arguments_are_errors(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            select(self.sample, **arguments)


REAL = Path(os.environ.get(image_sources.DATA_ROOT_VARIABLE, ""))


@pytest.mark.skipif(
    not os.environ.get(image_sources.DATA_ROOT_VARIABLE), reason=f"{image_sources.DATA_ROOT_VARIABLE} is not set: no MNIST files to read"
)
@pytest.mark.parametrize("source", ["mnist", "fashion-mnist"])
def test_the_real_test_images(source: str) -> None:
    found = load(source, root=REAL, split="test")
    assert (len(found), found.shape) == (10_000, (1, 28, 28))
    assert (found.images.min(), found.images.max()) == (0.0, 1.0)
    assert found.labels.max() == 9
