"""Images and labels of data sets: scikit-learn's digits, the files of MNIST, and files of one's own."""

from __future__ import annotations

import math
import os
import random
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipnet.errors import DataError
from mipnet.limits.memory import check_memory
from mipnet.network.given_arrays import numbers
from mipnet.readers.file_bytes import no_file, read_bytes

DATA_ROOT_VARIABLE = "MIPNET_DATA"
"""The environment variable that names the folder of data sets."""


IMAGE_NUMBER_BYTES = 24
"""Bytes per number of an image while images are loaded: in float64, and temporary copies."""


PUBLISHED_FOLDERS = {"mnist": ("MNIST/raw", "mnist", "."), "fashion-mnist": ("FashionMNIST/raw", "fashion-mnist", ".")}
"""The folders below ``root`` in which the files of a published data set are looked for."""


PathLike = str | os.PathLike[str]


def image_numbers(value: Any, what: str) -> NDArray[Any]:
    """Return whole or floating-point numbers as an array; raises `DataError` for others."""
    array = numbers(value, what)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{what} are of type {array.dtype}; expected whole or floating-point numbers")
    return array


def read_digits(split: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read scikit-learn's digits; a fifth of each class, drawn with a fixed seed, is the test split."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    keys = random.Random(0)  # the only generator whose numbers are documented to stay the same in all versions
    order = np.array([keys.random() for _ in labels])
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        members = np.flatnonzero(labels == label)
        is_test[members[np.argsort(order[members])][: round(0.2 * len(members))]] = True
    chosen = is_test if split == "test" else ~is_test
    return pixels[chosen], labels[chosen]


def read_published(source: str, root: PathLike | None, split: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read images ``(n, 1, rows, columns)`` and labels from the files with their published names."""
    given = root or os.environ.get(DATA_ROOT_VARIABLE)
    if not given:
        raise DataError(f"`{source}` is read from files; set `root`, or the environment variable {DATA_ROOT_VARIABLE}, to their folder")
    prefix = "train" if split == "train" else "t10k"
    pixels = read_idx(_find(source, Path(given), f"{prefix}-images", 3), 3)
    return pixels[:, None], read_idx(_find(source, Path(given), f"{prefix}-labels", 1), 1)


def _find(source: str, root: Path, stem: str, axes: int) -> Path:
    folders = [root / folder for folder in PUBLISHED_FOLDERS[source]]
    names = [f"{stem}{dot}idx{axes}-ubyte{suffix}" for dot in "-." for suffix in ("", ".gz")]
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    raise DataError(f"no file `{names[0]}[.gz]` of `{source}`; looked in {', '.join(str(folder) for folder in folders)}")


def read_own_files(
    source: str, root: Path, split: str, file: PathLike | None, names: tuple[PathLike, PathLike] | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read images and labels from the user's own files."""
    given = [str(part) for part in (file, *(names or ())) if part is not None]
    if split == "test" and not any("{split}" in part for part in given):
        raise DataError(f"`{source}` names one set of images, and that is `train`; for a test split write {{split}} in the names")
    images, labels = (str(part).replace("{split}", split) for part in names or ("images", "labels"))
    if source == "npz":
        if file is None:
            raise DataError("source `npz` needs `file`, the path of an .npz file")
        return _npz(root / str(file).replace("{split}", split), images, labels)
    if names is None:
        raise DataError("source `idx` needs `names`, the paths of two IDX files: images and labels")
    return read_idx(root / images, None), read_idx(root / labels, 1)


def _npz(path: Path, *names: str) -> tuple[NDArray[Any], NDArray[Any]]:
    if not path.is_file():
        raise DataError(f"{no_file(path)}; expected an .npz file")
    if not zipfile.is_zipfile(path):
        one = path.read_bytes()[:6] == b"\x93NUMPY"
        kind = "is a single array (.npy) and not an .npz file" if one else "is not an .npz file, or it is cut off"
        raise DataError(f"`{path}` {kind}; write one with `numpy.savez(path, images=..., labels=...)`")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            known = list(arrays)
            stored = sum(arrays.zip.getinfo(f"{name}.npy").file_size for name in names if f"{name}.npy" in arrays.zip.namelist())
            check_memory(f"the arrays of `{path}`", stored, "give fewer images")
            found = [image_numbers(arrays[name], f"`{name}` of `{path}`") for name in names if name in known]
    except DataError:
        raise
    except (OSError, EOFError, AttributeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"`{path}` is not an .npz file of plain arrays ({_short(error)}); write one with `numpy.savez`") from None
    if missing := [name for name in names if name not in known]:
        raise DataError(f"`{path}` has no array `{missing[0]}`; it has {', '.join(known) or 'none'}")
    return found[0], found[1]


def read_idx(path: Path, axes: int | None = None) -> NDArray[np.uint8]:
    """Read the unsigned bytes of an IDX file, gzipped or not, with ``axes`` axes (at least two if None)."""
    data = read_bytes(path, "an IDX file")
    known = len(data) >= 4 and data[:3] == b"\x00\x00\x08" and (data[3] == axes if axes else data[3] >= 2)
    if not known:
        expected = f"00 00 08 {axes:02x}" if axes else "00 00 08 and the number of axes, at least 2"
        raise DataError(f"`{path}` begins with the bytes {data[:4].hex(' ') or '(none)'}; expected {expected} (IDX, unsigned bytes)")
    start = 4 + 4 * data[3]
    sizes = [int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4)]
    if len(data) < start or len(data) - start != math.prod(sizes):
        verb = "is cut off" if len(data) < start + math.prod(sizes) else "is too long"
        raise DataError(f"`{path}` {verb}: it has {len(data)} bytes, and its header says {start + math.prod(sizes)}; fetch it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(sizes)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}".rstrip(": ")
