"""Modules with masks of `torch.nn.utils.prune` or a weight norm, and files of them: what they compute is read, or they are refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

import mipnet as mn
from mipnet.app.cli.main import main
from mipnet.errors import NetworkError, UnsupportedError

LAYERS = [
    {"name": "0", "type": "Linear", "in_features": 4, "out_features": 3},
    {"name": "1", "type": "ReLU"},
    {"name": "2", "type": "Linear", "in_features": 3, "out_features": 2},
]
X = np.random.default_rng(0).normal(size=(8, 4))
Y = np.arange(8) % 2
EXAMPLE = torch.zeros(1, 4)


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()


def unstructured(module: nn.Sequential) -> None:
    torch_prune.l1_unstructured(module[0], "weight", 0.5)


def structured(module: nn.Sequential) -> None:
    torch_prune.ln_structured(module[0], "weight", 0.34, n=2, dim=0)
    torch_prune.random_unstructured(module[0], "bias", 0.3)


def over_all(module: nn.Sequential) -> None:
    torch_prune.global_unstructured([(module[0], "weight"), (module[2], "weight")], torch_prune.L1Unstructured, amount=0.3)


def identity(module: nn.Sequential) -> None:
    torch_prune.identity(module[2], "weight")


def weight_norm(module: nn.Sequential) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(module[0])


def parametrized(module: nn.Sequential) -> None:
    parametrizations.weight_norm(module[0])


MASKS = [unstructured, structured, over_all, identity]
COMPUTED = [*MASKS, weight_norm, parametrized]
REMEDIES = {"weight_norm": r"remove_weight_norm\(module\)", "parametrized": r"remove_parametrizations\("}

some = [pytest.param(each, marks=() if each in (structured, weight_norm) else pytest.mark.sweep) for each in COMPUTED]


def changed(change: Callable[[nn.Sequential], None]) -> nn.Sequential:
    module = plain()
    change(module)
    return module


def outputs(module: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(module(torch.tensor(X, dtype=torch.float32)).numpy())


@pytest.mark.parametrize("change", some)
def test_a_network_has_the_weights_that_the_module_computes(change: Callable[[nn.Sequential], None]) -> None:
    module = changed(change)
    np.testing.assert_allclose(mn.from_torch(module, EXAMPLE).forward(X), outputs(module), atol=1e-6)
    assert set(module.state_dict()) == set(changed(change).state_dict()), "the module of the user is as it was"


@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=pytest.mark.sweep)])
@pytest.mark.parametrize("change", some)
def test_an_exported_file_has_the_weights_that_the_module_computes(
    change: Callable[[nn.Sequential], None], suffix: str, tmp_path: Path
) -> None:
    module = changed(change)
    path = mn.export(module, tmp_path / f"a{suffix}", EXAMPLE)
    np.testing.assert_allclose(mn.read(path).forward(X), outputs(module), atol=1e-5)


@pytest.mark.parametrize("change", [pytest.param(each, marks=() if each is structured else pytest.mark.sweep) for each in MASKS])
def test_exported_weights_are_masked_ones(change: Callable[[nn.Sequential], None], tmp_path: Path) -> None:
    module = changed(change)
    path = mn.export(module, tmp_path / "a.safetensors", EXAMPLE)
    np.testing.assert_allclose(mn.read(path, LAYERS, (4,)).forward(X), outputs(module), atol=1e-6)


@pytest.mark.parametrize("change", some)
def test_fine_tuning_and_measuring_leave_the_module_alone(change: Callable[[nn.Sequential], None]) -> None:
    module = changed(change)
    before = outputs(module)
    tuned = mn.fine_tune(module, X, Y, epochs=2, lr=0.1)
    assert mn.measure(module, EXAMPLE, batch=2, repeats=1).multiply_adds == 18
    np.testing.assert_array_equal(outputs(module), before)
    assert not np.allclose(outputs(tuned), before)


def test_masks_of_the_user_hold_in_training_and_stay() -> None:
    module = changed(unstructured)
    gone = module[0].weight_mask == 0
    mn.train(module, X, Y, epochs=2, lr=0.1)
    assert torch_prune.is_pruned(module)
    module(EXAMPLE)
    assert bool((module[0].weight[gone] == 0).all())
    assert bool((module[0].weight[~gone] != plain()[0].weight[~gone]).any())


@pytest.mark.parametrize("change", [pytest.param(each, marks=() if each is unstructured else pytest.mark.sweep) for each in MASKS])
def test_a_masked_module_is_not_cut(change: Callable[[nn.Sequential], None]) -> None:
    network = mn.from_torch(plain(), EXAMPLE)
    gates = mn.find_gates(network)
    masks = mn.make_masks(network, gates, mn.importance(network, X, Y).scores, {"params": 0.3})
    with pytest.raises(UnsupportedError, match=r"make them permanent first \(`torch\.nn\.utils\.prune\.remove`\)"):
        mn.prune(changed(change), masks, EXAMPLE)


@pytest.mark.parametrize("suffix", [".pt", pytest.param(".safetensors", marks=pytest.mark.sweep)])
@pytest.mark.parametrize("change", some)
def test_weights_that_have_to_be_computed_are_refused_with_what_to_do(
    change: Callable[[nn.Sequential], None], suffix: str, tmp_path: Path
) -> None:
    path, state = tmp_path / f"w{suffix}", changed(change).state_dict()
    if suffix == ".pt":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file({key: value.clone().contiguous() for key, value in state.items()}, path)
    remedy = REMEDIES.get(change.__name__, r'`torch\.nn\.utils\.prune\.remove\(module, "weight"\)`')
    with pytest.raises(NetworkError, match=remedy) as caught:
        mn.read(path, LAYERS, (4,))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [plain, lambda: changed(structured), lambda: nn.DataParallel(plain())])
def test_a_whole_module_in_a_file_is_named(make: Callable[[], nn.Module], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, path = make(), tmp_path / "m.pt"
    torch.save(module, path)
    with pytest.raises(NetworkError, match=r"write `torch\.save\(module\.state_dict\(\), path\)`") as caught:
        mn.read(path, LAYERS, (4,))
    assert "\n" not in str(caught.value)
    assert "could run code" in str(caught.value)
    assert main(["inspect", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
