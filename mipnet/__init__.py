"""mipnet: trained neural networks as mixed-integer programs, on open solvers.

    import mipnet as mn

    net = mn.from_torch(module, example_input)
    encoding = mn.encode(net, mn.LInf(x, 0.03))
    result = mn.solve(encoding, backend="highs", time_limit=60)

Names are loaded on first use, so ``import mipnet`` and the command line start at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mipnet.backend import Backend as Backend
    from mipnet.backend import Event as Event
    from mipnet.backend import Feature as Feature
    from mipnet.backend import Limits as Limits
    from mipnet.backend import Outcome as Outcome
    from mipnet.backend import Session as Session
    from mipnet.backend import Status as Status
    from mipnet.backend import backends as backends
    from mipnet.backend import get_backend as get_backend
    from mipnet.block import Block as Block
    from mipnet.block import encoding as encoding
    from mipnet.block import linear_map as linear_map
    from mipnet.bounds.boxes import Bounds as Bounds
    from mipnet.bounds.boxes import load_bounds as load_bounds
    from mipnet.bounds.interval import Interval as Interval
    from mipnet.bounds.interval import interval as interval
    from mipnet.bounds.rules import backward as backward
    from mipnet.bounds.rules import lines as lines
    from mipnet.bounds.sweep import propagate as propagate
    from mipnet.build import Encoding as Encoding
    from mipnet.build import add_network as add_network
    from mipnet.build import encode as encode
    from mipnet.engine import OpenProblem as OpenProblem
    from mipnet.engine import Result as Result
    from mipnet.engine import open_problem as open_problem
    from mipnet.engine import solve as solve
    from mipnet.errors import MipnetError as MipnetError
    from mipnet.explaining import Explained as Explained
    from mipnet.explaining import Explanation as Explanation
    from mipnet.explaining import explain as explain
    from mipnet.gates import Gate as Gate
    from mipnet.gates import find_gates as find_gates
    from mipnet.ir import Layer as Layer
    from mipnet.ir import Network as Network
    from mipnet.ir import Node as Node
    from mipnet.layers import AdaptiveAvgPool2d as AdaptiveAvgPool2d
    from mipnet.layers import Add as Add
    from mipnet.layers import AvgPool2d as AvgPool2d
    from mipnet.layers import BatchNorm as BatchNorm
    from mipnet.layers import Clip as Clip
    from mipnet.layers import Concat as Concat
    from mipnet.layers import Conv2d as Conv2d
    from mipnet.layers import Dense as Dense
    from mipnet.layers import LeakyReLU as LeakyReLU
    from mipnet.layers import MaxPool2d as MaxPool2d
    from mipnet.layers import Permute as Permute
    from mipnet.layers import ReLU as ReLU
    from mipnet.layers import Reshape as Reshape
    from mipnet.layers import Scale as Scale
    from mipnet.layers import Window as Window
    from mipnet.losses import Loss as Loss
    from mipnet.program import Program as Program
    from mipnet.program import Rows as Rows
    from mipnet.properties import Case as Case
    from mipnet.properties import Clause as Clause
    from mipnet.properties import Property as Property
    from mipnet.pruning.compare import compare as compare
    from mipnet.pruning.export import export as export
    from mipnet.pruning.footprint import Footprint as Footprint
    from mipnet.pruning.footprint import measure as measure
    from mipnet.pruning.masks import accuracy as accuracy
    from mipnet.pruning.masks import critical_masks as critical_masks
    from mipnet.pruning.masks import make_masks as make_masks
    from mipnet.pruning.masks import random_masks as random_masks
    from mipnet.pruning.rivals import RIVALS as RIVALS
    from mipnet.pruning.stepwise import prune_stepwise as prune_stepwise
    from mipnet.pruning.surgery import prune as prune
    from mipnet.pruning.tune import fine_tune as fine_tune
    from mipnet.pruning.tune import train as train
    from mipnet.readers.data import load as load
    from mipnet.readers.files import read as read
    from mipnet.readers.onnx_file import from_onnx as from_onnx
    from mipnet.readers.torch import from_torch as from_torch
    from mipnet.readers.vnnlib import read_vnnlib as read_vnnlib
    from mipnet.sets import L1 as L1
    from mipnet.sets import L2 as L2
    from mipnet.sets import Ball as Ball
    from mipnet.sets import Box as Box
    from mipnet.sets import LInf as LInf
    from mipnet.sets import Samples as Samples
    from mipnet.tasks.agreement import Agreement as Agreement
    from mipnet.tasks.agreement import agree as agree
    from mipnet.tasks.agreement import agree_on_class as agree_on_class
    from mipnet.tasks.compression import Compressed as Compressed
    from mipnet.tasks.compression import compress as compress
    from mipnet.tasks.importance import Importance as Importance
    from mipnet.tasks.importance import Scores as Scores
    from mipnet.tasks.importance import importance as importance
    from mipnet.tasks.reachability import Reached as Reached
    from mipnet.tasks.reachability import reach as reach
    from mipnet.tasks.weights import spaced_weights as spaced_weights
    from mipnet.tasks.weights import weight_path as weight_path
    from mipnet.tightening import tighten as tighten
    from mipnet.verification.distortion import Distortion as Distortion
    from mipnet.verification.distortion import minimum_distortion as minimum_distortion
    from mipnet.verification.expressions import property_of as property_of
    from mipnet.verification.margins import Margin as Margin
    from mipnet.verification.margins import maximum_margin as maximum_margin
    from mipnet.verification.oracle import Oracle as Oracle
    from mipnet.verification.pipeline import verify as verify
    from mipnet.verification.robustness import robustness as robustness
    from mipnet.verification.verdict import Verdict as Verdict

__version__ = "0.1.0"

_HOME = {
    "mipnet.backend": "Backend Event Feature Limits Outcome Session Status backends get_backend",
    "mipnet.block": "Block encoding linear_map",
    "mipnet.bounds.boxes": "Bounds load_bounds",
    "mipnet.bounds.interval": "Interval interval",
    "mipnet.bounds.rules": "backward lines",
    "mipnet.bounds.sweep": "propagate",
    "mipnet.build": "Encoding add_network encode",
    "mipnet.errors": "MipnetError",
    "mipnet.explaining": "Explained Explanation explain",
    "mipnet.gates": "Gate find_gates",
    "mipnet.ir": "Layer Network Node",
    "mipnet.layers": (
        "AdaptiveAvgPool2d Add AvgPool2d BatchNorm Clip Concat Conv2d Dense LeakyReLU MaxPool2d Permute ReLU Reshape Scale Window"
    ),
    "mipnet.losses": "Loss",
    "mipnet.program": "Program Rows",
    "mipnet.properties": "Case Clause Property",
    "mipnet.pruning.masks": "accuracy critical_masks make_masks random_masks",
    "mipnet.pruning.compare": "compare",
    "mipnet.pruning.export": "export",
    "mipnet.pruning.footprint": "Footprint measure",
    "mipnet.pruning.rivals": "RIVALS",
    "mipnet.pruning.stepwise": "prune_stepwise",
    "mipnet.pruning.surgery": "prune",
    "mipnet.pruning.tune": "fine_tune train",
    "mipnet.readers.data": "load",
    "mipnet.readers.files": "read",
    "mipnet.readers.onnx_file": "from_onnx",
    "mipnet.readers.torch": "from_torch",
    "mipnet.readers.vnnlib": "read_vnnlib",
    "mipnet.sets": "Ball Box L1 L2 LInf Samples",
    "mipnet.engine": "OpenProblem Result open_problem solve",
    "mipnet.tasks.agreement": "Agreement agree agree_on_class",
    "mipnet.tasks.compression": "Compressed compress",
    "mipnet.tasks.reachability": "Reached reach",
    "mipnet.tasks.importance": "Importance Scores importance",
    "mipnet.tasks.weights": "spaced_weights weight_path",
    "mipnet.tightening": "tighten",
    "mipnet.verification.distortion": "Distortion minimum_distortion",
    "mipnet.verification.expressions": "property_of",
    "mipnet.verification.margins": "Margin maximum_margin",
    "mipnet.verification.oracle": "Oracle",
    "mipnet.verification.pipeline": "verify",
    "mipnet.verification.robustness": "robustness",
    "mipnet.verification.verdict": "Verdict",
}
_WHERE = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module `mipnet` has no attribute `{name}`")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
