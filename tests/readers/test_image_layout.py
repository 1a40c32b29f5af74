"""Images in the shape that a network takes: a pixel keeps its place, or the layout is asked for."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import mipnet as mn
from mipnet.app.cli.main import main
from mipnet.errors import DataError, InputError
from tests.readers.test_data import idx

LAST = np.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3).astype(np.uint8)
FIRST = np.moveaxis(LAST, -1, 1)
CUBE = np.arange(128).reshape(2, 4, 4, 4).astype(np.uint8)


def loaded(folder: Path, images: np.ndarray, **given: object) -> np.ndarray:
    np.savez(folder / "a.npz", images=images, labels=np.array([0, 1]))
    found: np.ndarray = mn.load("npz", root=folder, file="a.npz", **given).images * 255  # type: ignore[arg-type]
    return found.round()


RIGHT = [
    (LAST, {"shape": (3, 4, 5), "channels": "last"}, FIRST),
    (LAST, {"channels": "last"}, FIRST),
    (LAST, {"shape": (60,), "channels": "last"}, FIRST.reshape(2, 60)),
    (LAST.reshape(2, 60), {"shape": (3, 4, 5), "channels": "last"}, FIRST),
    (LAST, {}, LAST),
    (LAST, {"shape": (4, 5, 3)}, LAST),
    (FIRST, {"shape": (3, 4, 5)}, FIRST),
    (FIRST, {"shape": (3, 4, 5), "channels": "first"}, FIRST),
    (FIRST.reshape(2, 60), {"shape": (3, 4, 5), "channels": "first"}, FIRST),
    (FIRST, {"shape": (60,), "channels": "first"}, FIRST.reshape(2, 60)),
    (FIRST, {"shape": (4, 5, 3), "channels": "first"}, LAST),  # networks may have their channels last
    (LAST, {"shape": (4, 5, 3), "channels": "last"}, LAST),
    (CUBE, {"shape": (4, 4, 4)}, CUBE),
    (CUBE, {"shape": (4, 4, 4), "channels": "first"}, CUBE),
    (CUBE, {"shape": (4, 4, 4), "channels": "last"}, np.moveaxis(CUBE, -1, 1)),
    (LAST[..., :1], {"shape": (1, 4, 5)}, FIRST[:, :1]),
    (LAST[..., :1], {"shape": (1, 4, 5), "channels": "last"}, FIRST[:, :1]),
    (LAST[..., 0], {"shape": (1, 4, 5)}, FIRST[:, :1]),
    (LAST[..., 0], {"shape": (1, 4, 5), "channels": "last"}, FIRST[:, :1]),
    (LAST[..., 0], {"shape": (20,)}, LAST[..., 0].reshape(2, 20)),
    (LAST[..., :1], {"shape": (20,)}, LAST[..., 0].reshape(2, 20)),
    (LAST[..., 0].reshape(2, 20), {"shape": (1, 4, 5)}, FIRST[:, :1]),
]


@pytest.mark.parametrize(("images", "given", "wanted"), RIGHT)
def test_every_pixel_is_in_its_place(tmp_path, images, given, wanted):
    assert (loaded(tmp_path, images, **given) == wanted).all()


WRONG = [
    (LAST, {"shape": (3, 4, 5)}, "would move its pixels.*write `channels: last`"),
    (LAST, {"shape": (3, 4, 5), "channels": "first"}, "would move its pixels"),
    (FIRST, {"shape": (4, 3, 5), "channels": "last"}, "would move its pixels"),
    (FIRST, {"shape": (4, 5, 3)}, "would move its pixels.*write `channels: first`"),
    (LAST, {"shape": (5, 4, 3)}, "would move its pixels"),
    (LAST[..., 0], {"shape": (5, 4)}, "would move its pixels"),
    (LAST[..., 0], {"shape": (1, 5, 4)}, "would move its pixels"),
    (LAST[..., 0], {"shape": (2, 10)}, "would move its pixels"),
    (LAST, {"shape": (60,)}, "depends on where the channels are stored; write `channels: first` or `channels: last`"),
    (FIRST, {"shape": (60, 1)}, "depends on where the channels are stored"),
    (LAST.reshape(2, 60), {"shape": (3, 4, 5)}, "depends on where the channels are stored"),
    (LAST, {"shape": (3, 4, 4)}, "cannot be reshaped"),
    (LAST, {"shape": (3, 4, 5), "channels": "end"}, "given 'end' as `channels`; expected `first` or `last`"),
]


@pytest.mark.parametrize(("images", "given", "words"), WRONG)
def test_what_would_move_pixels_is_refused(tmp_path, images, given, words):
    with pytest.raises(InputError, match=words) as caught:
        loaded(tmp_path, images, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", list(permutations((3, 4, 5))))
def test_no_permutation_of_axes_is_taken_for_a_reshape(tmp_path, order):
    images = np.zeros((2, *order), dtype=np.uint8)
    if order == (3, 4, 5):
        assert loaded(tmp_path, images, shape=(3, 4, 5)).shape == (2, 3, 4, 5)
    else:
        with pytest.raises(DataError, match="would move its pixels"):
            loaded(tmp_path, images, shape=(3, 4, 5))


def test_idx_files_have_channels_too(tmp_path):
    (tmp_path / "x").write_bytes(idx(LAST))
    (tmp_path / "y").write_bytes(idx(np.array([0, 1], dtype=np.uint8)))
    with pytest.raises(DataError, match="channels: last"):
        mn.load("idx", tmp_path, names=("x", "y"), shape=(3, 4, 5))
    found = mn.load("idx", tmp_path, names=("x", "y"), shape=(3, 4, 5), channels="last")
    assert np.allclose(found.images * 255, FIRST)


def test_the_command_line_asks_and_takes_the_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", images=LAST, labels=np.array([0, 1]))
    module = nn.Sequential(nn.Conv2d(3, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2))
    mn.export(module, "net.pt2", torch.zeros(1, 3, 4, 5))
    data = "{source: npz, file: a.npz, split: train}"
    Path("v.yaml").write_text(f"mipnet: 1\ntask: verify\nnetwork: {{file: net.pt2}}\nregion: {{data: {data}, index: 1, radius: 1.0e-9}}\n")
    assert main(["verify", "v.yaml"]) == 2
    told = capsys.readouterr().err
    assert "would move its pixels" in told
    assert "channels: last" in told
    assert main(["verify", "v.yaml", "--set", "region.data.channels=last", "--json"]) == 0
    assert main(["verify", "v.yaml", "--set", "region.data.channels=end"]) == 2
    assert "expected `first` or `last`" in capsys.readouterr().err
