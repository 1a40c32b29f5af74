"""Data sets: images in float64, scaled to [0, 1], with integer labels.

`load` reads scikit-learn's digits, MNIST and Fashion-MNIST (the IDX files, as published or as torchvision keeps them), any
other pair of IDX files and `.npz` files.  `select` chooses the samples that a program is written for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mipnet.arrays import Array, Ints, Shape
from mipnet.errors import DataError, check_choice, shown, suggest_keywords
from mipnet.limits.memory import making
from mipnet.network.given_arrays import numbers
from mipnet.network.labelled_samples import samples_by_label
from mipnet.network.named_inputs import Names, names_of_inputs
from mipnet.readers.image_layout import in_shape
from mipnet.readers.image_sources import (
    IMAGE_NUMBER_BYTES,
    PUBLISHED_FOLDERS,
    PathLike,
    image_numbers,
    read_digits,
    read_own_files,
    read_published,
)

DATA_SPLITS = ("train", "test")
SAMPLE_PICKS = ("first", "random", "confident", "uncertain")

DATA_SOURCES = ("digits", *PUBLISHED_FOLDERS, "npz", "idx")


@suggest_keywords
@dataclass(frozen=True, eq=False)
class Dataset:
    """``images`` of shape ``(n, *shape)`` in float64 and ``labels`` of shape ``(n,)`` in 0, ..., ``classes`` - 1.

    Raises `DataError` unless both have n entries, every pixel is finite and every label is a whole number in that range.
    """

    images: Array
    labels: Ints
    name: str
    classes: int
    input_names: Names = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_names", names_of_inputs(self.images, f"the images of `{self.name}`"))
        given, classes = samples_by_label(self.images, self.labels)
        images = image_numbers(given, f"the images of `{self.name}`").astype(np.float64, copy=False)
        labels = image_numbers(classes, f"the labels of `{self.name}`")
        if images.ndim < 2 or labels.ndim != 1 or len(images) != len(labels) or not len(labels):
            raise DataError(
                f"`{self.name}` has images of shape {images.shape} and labels of shape {labels.shape};"
                " expected (n, *image shape) and (n,) with the same n >= 1"
            )
        if wrong := int(np.count_nonzero(~np.isfinite(images))):
            raise DataError(f"the images of `{self.name}` hold {wrong} NaN or infinite pixels; expected finite numbers")
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", _whole_labels(labels, self.classes, self.name))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> Shape:
        """Shape of one image."""
        return self.images.shape[1:]

    def take(self, index: Ints) -> Dataset:
        """Return the samples at these positions, in this order."""
        taken = replace(self, images=self.images[index], labels=self.labels[index])
        object.__setattr__(taken, "input_names", self.input_names)
        return taken


def _whole_labels(labels: NDArray[Any], classes: int, name: str) -> Ints:
    wrong = (labels != np.round(labels)) | (labels < 0) | (labels >= classes)
    if wrong.any():
        value, at = labels[wrong][0], int(np.flatnonzero(wrong)[0])
        expected = f"from 0 to {classes - 1}" if value > classes - 1 else "of at least 0"
        raise DataError(f"label {value} of sample {at} of `{name}` is not a class; expected a whole number {expected}")
    return labels.astype(np.int64)


MOVED_ARGUMENTS_OF_LOAD = {
    "classes": "write `dataclasses.replace(mn.load(...), classes=...)`",
    **dict.fromkeys(("images", "labels"), "write `names=(images, labels)`"),
}
"""What to write instead of arguments that `load` does not have any more; see `mipnet.errors.suggest_keywords`."""


@suggest_keywords(moved=MOVED_ARGUMENTS_OF_LOAD)
def load(
    source: str,
    root: PathLike | None = None,
    split: str = "train",
    *,
    shape: Sequence[int] | None = None,
    file: PathLike | None = None,
    names: tuple[PathLike, PathLike] | None = None,
    scale: float | None = None,
    channels: Literal["first", "last"] | None = None,
) -> Dataset:
    """Load the ``train`` or ``test`` split of a data set, with each image in the given ``shape`` (its stored shape if None).

    ``digits``                  1,797 images of 8x8, from scikit-learn; a fixed, stratified split of 80 to 20
    ``mnist, fashion-mnist``    IDX files, gzipped or not, somewhere under ``root`` (or the folder that MIPNET_DATA names)
    ``npz``                     ``file``, whose arrays of images and labels have the ``names`` ``("images", "labels")``, unless given
    ``idx``                     two files, of images and of labels, with these ``names``

    Paths are relative to ``root``.  If both splits exist, write ``{split}`` in ``file`` or in ``names``.  Pixels are divided by ``scale``,
    by default 255 for bytes and 1 for floating-point numbers.  The number of classes is 10 for the published data sets, else the largest
    label plus 1; ``dataclasses.replace(dataset, classes=12)`` sets another one.

    ``channels`` says where the stored images have their channels: ``"last"`` for (rows, columns, channels), which become (channels, rows,
    columns); ``"first"`` for an order of axes that stays as it is.  No other change moves a pixel; see `mipnet.readers.image_layout`.
    Raises `DataError` if something is missing, broken or does not fit.
    """
    check_choice("the data source", source, DATA_SOURCES, DataError)
    check_choice("the split", split, DATA_SPLITS, DataError)
    takes = {"npz": "root file names scale channels", "idx": "root names scale channels", "digits": ""}.get(source, "root scale").split()
    for key, given in {"root": root, "file": file, "names": names, "scale": scale, "channels": channels}.items():
        if given is not None and key not in takes:
            raise DataError(f"`{key}` is {shown(given)}, and has no effect for source `{source}`; leave it out")
    if scale is not None and not 0 < scale < math.inf:
        raise DataError(f"the scale is {shown(scale)}; expected a positive number, by which pixels are divided")
    if source == "digits":
        pixels, labels = read_digits(split)
    elif source in PUBLISHED_FOLDERS:
        pixels, labels = read_published(source, root, split)
    else:
        pixels, labels = read_own_files(source, Path(root or "."), split, file, names)
    if pixels.ndim == 1 < labels.ndim:
        raise DataError(f"`{source}` has images of shape {pixels.shape} and labels of shape {labels.shape}; are the two swapped?")
    count = 10 if source not in ("npz", "idx") else _count_classes(labels)
    with making(f"{len(pixels):,} images of {pixels[:1].size:,} numbers", IMAGE_NUMBER_BYTES * pixels.size, "give fewer images"):
        images = in_shape(_scaled(pixels, 16.0 if source == "digits" else scale, source), shape, channels, source)
        return Dataset(images, labels, source, count)


def _count_classes(labels: NDArray[Any]) -> int:
    return int(labels.max(initial=0, where=np.isfinite(labels))) + 1


def _scaled(pixels: NDArray[Any], scale: float | None, source: str) -> Array:
    if scale is None and pixels.dtype.kind in "iu" and pixels.dtype != np.uint8:
        expected = "expected bytes or floating-point numbers, or a `scale` to divide by, such as 255"
        raise DataError(f"the images of `{source}` are of type {pixels.dtype}; {expected}")
    divisor = scale if scale is not None else 255.0 if pixels.dtype == np.uint8 else 1.0
    return image_numbers(pixels, f"the images of `{source}`") / np.float64(divisor)


@suggest_keywords
def select(
    dataset: Dataset,
    per_class: int | None = None,
    total: int | None = None,
    pick: str = "first",
    seed: int = 0,
    scores: Array | None = None,
) -> Dataset:
    """Choose ``per_class`` samples of every class (class by class), or ``total`` samples, or all samples if neither is given.

    ``first``      in the order of the data set
    ``random``     drawn with ``seed``
    ``confident``  with the largest ``scores``, the network's probabilities of the samples' true classes
    ``uncertain``  with the smallest ``scores``

    Raises `DataError` if there are not enough samples.
    """
    if per_class is not None and total is not None:
        raise DataError(f"per_class={per_class} and total={total} are both given; expected one of them")
    wanted = per_class if per_class is not None else total
    if wanted is not None and wanted < 1:
        raise DataError(f"{wanted} samples are asked for; expected at least 1")
    order = _order(dataset, pick, seed, scores)
    if per_class is None:
        return dataset.take(_first(order, total, f"`{dataset.name}`"))
    groups = (_first(order[dataset.labels[order] == k], per_class, f"class {k} of `{dataset.name}`") for k in range(dataset.classes))
    return dataset.take(np.concatenate(list(groups)))


def _first(order: Ints, wanted: int | None, what: str) -> Ints:
    if wanted is not None and wanted > len(order):
        raise DataError(f"{what} has {len(order)} samples; {wanted} are asked for")
    return order[:wanted]


def _order(dataset: Dataset, pick: str, seed: int, scores: Array | None) -> Ints:
    check_choice("`pick`", pick, SAMPLE_PICKS, DataError)
    if pick == "first":
        return np.arange(len(dataset))
    if pick == "random":
        return np.random.default_rng(seed).permutation(len(dataset))
    if scores is None:
        raise DataError(f"pick `{pick}` needs `scores`: for each sample, the network's probability of its true class")
    keys = np.asarray(numbers(samples_by_label(dataset.images, scores)[1], "the scores"), dtype=np.float64)
    if keys.shape != dataset.labels.shape or not np.isfinite(keys).all():
        raise DataError(f"the scores have shape {keys.shape}; expected {dataset.labels.shape}, one finite number per sample")
    return np.argsort(-keys if pick == "confident" else keys, kind="stable")
