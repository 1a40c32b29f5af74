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

from mipnet.version import __version__ as __version__

if TYPE_CHECKING:
    from mipnet.backend import Backend as Backend
    from mipnet.backend import Event as Event
    from mipnet.backend import Feature as Feature
    from mipnet.backend import Limits as Limits
    from mipnet.backend import Outcome as Outcome
    from mipnet.backend import Program as Program
    from mipnet.backend import Rows as Rows
    from mipnet.backend import Session as Session
    from mipnet.backend import Status as Status
    from mipnet.backend import backends as backends
    from mipnet.backend import get_backend as get_backend
    from mipnet.bounds.boxes import Bounds as Bounds
    from mipnet.bounds.boxes import load_bounds as load_bounds
    from mipnet.bounds.interval import Interval as Interval
    from mipnet.bounds.interval import interval as interval
    from mipnet.bounds.linear_rules import backward as backward
    from mipnet.bounds.linear_rules import lines as lines
    from mipnet.bounds.propagation import propagate as propagate
    from mipnet.bounds.user_bounds import UserBounds as UserBounds
    from mipnet.embedding.add_network import add_network as add_network
    from mipnet.embedding.add_network import add_predictor as add_predictor
    from mipnet.embedding.settings import EmbeddingSettings as EmbeddingSettings
    from mipnet.embedding.winning_class import argmax_is as argmax_is
    from mipnet.errors import MipnetError as MipnetError
    from mipnet.formulations.block import Block as Block
    from mipnet.formulations.registry import encoding as encoding
    from mipnet.formulations.registry import linear_map as linear_map
    from mipnet.layers import AdaptiveAvgPool2d as AdaptiveAvgPool2d
    from mipnet.layers import Add as Add
    from mipnet.layers import AvgPool2d as AvgPool2d
    from mipnet.layers import AxisDense as AxisDense
    from mipnet.layers import BatchNorm as BatchNorm
    from mipnet.layers import Clip as Clip
    from mipnet.layers import Concat as Concat
    from mipnet.layers import Conv2d as Conv2d
    from mipnet.layers import Conv3d as Conv3d
    from mipnet.layers import ConvTranspose2d as ConvTranspose2d
    from mipnet.layers import Dense as Dense
    from mipnet.layers import Gather as Gather
    from mipnet.layers import LeakyReLU as LeakyReLU
    from mipnet.layers import Maximum as Maximum
    from mipnet.layers import MaxPool2d as MaxPool2d
    from mipnet.layers import Permute as Permute
    from mipnet.layers import PReLU as PReLU
    from mipnet.layers import ReLU as ReLU
    from mipnet.layers import Reshape as Reshape
    from mipnet.layers import Scale as Scale
    from mipnet.layers import Select as Select
    from mipnet.layers import SparseMap as SparseMap
    from mipnet.layers import TreeEnsemble as TreeEnsemble
    from mipnet.layers import Window as Window
    from mipnet.limits.kept_parts import keep_parts as keep_parts
    from mipnet.limits.memory import memory_limit as memory_limit
    from mipnet.model.encode import encode as encode
    from mipnet.model.encoding import Encoding as Encoding
    from mipnet.model.explanation import Explained as Explained
    from mipnet.model.explanation import Explanation as Explanation
    from mipnet.model.explanation import explain as explain
    from mipnet.model.losses import Loss as Loss
    from mipnet.network.final_softmax import FinalSoftmax as FinalSoftmax
    from mipnet.network.gates import Gate as Gate
    from mipnet.network.gates import find_gates as find_gates
    from mipnet.network.graph import Layer as Layer
    from mipnet.network.graph import Network as Network
    from mipnet.network.graph import Node as Node
    from mipnet.network.polytope_sets import ConvexHull as ConvexHull
    from mipnet.network.polytope_sets import Polytope as Polytope
    from mipnet.network.properties import Case as Case
    from mipnet.network.properties import Clause as Clause
    from mipnet.network.properties import Property as Property
    from mipnet.network.sets import L1 as L1
    from mipnet.network.sets import L2 as L2
    from mipnet.network.sets import Ball as Ball
    from mipnet.network.sets import Box as Box
    from mipnet.network.sets import LInf as LInf
    from mipnet.network.sets import Samples as Samples
    from mipnet.pruning.importance.objective import Objective as Objective
    from mipnet.pruning.importance.paper_bounds import PaperBounds as PaperBounds
    from mipnet.pruning.importance.program import Importance as Importance
    from mipnet.pruning.importance.program import Scores as Scores
    from mipnet.pruning.importance.program import importance as importance
    from mipnet.pruning.importance.solve_settings import SolveSettings as SolveSettings
    from mipnet.pruning.importance.weight_path import spaced_weights as spaced_weights
    from mipnet.pruning.importance.weight_path import weight_path as weight_path
    from mipnet.pruning.labelled_images import LabelledImages as LabelledImages
    from mipnet.pruning.rivals.comparison import ComparisonSettings as ComparisonSettings
    from mipnet.pruning.rivals.comparison import compare as compare
    from mipnet.pruning.rivals.registry import RIVALS as RIVALS
    from mipnet.pruning.rivals.registry import rival as rival
    from mipnet.pruning.smaller.export import export as export
    from mipnet.pruning.smaller.footprint import Footprint as Footprint
    from mipnet.pruning.smaller.footprint import measure as measure
    from mipnet.pruning.smaller.masks import accuracy as accuracy
    from mipnet.pruning.smaller.masks import critical_masks as critical_masks
    from mipnet.pruning.smaller.masks import make_masks as make_masks
    from mipnet.pruning.smaller.masks import random_masks as random_masks
    from mipnet.pruning.smaller.surgery import prune as prune
    from mipnet.pruning.stepwise.pruning_path import prune_stepwise as prune_stepwise
    from mipnet.pruning.training import TrainingSettings as TrainingSettings
    from mipnet.pruning.training import fine_tune as fine_tune
    from mipnet.pruning.training import train as train
    from mipnet.readers.data import load as load
    from mipnet.readers.estimators.reader import from_sklearn as from_sklearn
    from mipnet.readers.files import read as read
    from mipnet.readers.onnx_file import from_onnx as from_onnx
    from mipnet.readers.torch import from_torch as from_torch
    from mipnet.readers.vnnlib import read_vnnlib as read_vnnlib
    from mipnet.solving.engine import Result as Result
    from mipnet.solving.engine import solve as solve
    from mipnet.solving.mip_settings import MipSettings as MipSettings
    from mipnet.solving.open_problem import OpenProblem as OpenProblem
    from mipnet.solving.open_problem import open_problem as open_problem
    from mipnet.solving.tightening import TighteningRun as TighteningRun
    from mipnet.solving.tightening import tighten as tighten
    from mipnet.verification.activation_maximisation import ActivationMaximum as ActivationMaximum
    from mipnet.verification.activation_maximisation import activation_maximisation as activation_maximisation
    from mipnet.verification.counterfactuals.counterfactual import Counterfactual as Counterfactual
    from mipnet.verification.counterfactuals.counterfactual import counterfactual as counterfactual
    from mipnet.verification.counterfactuals.settings import CounterfactualSettings as CounterfactualSettings
    from mipnet.verification.distortion import Distortion as Distortion
    from mipnet.verification.distortion import minimum_distortion as minimum_distortion
    from mipnet.verification.distortion_settings import DistortionSettings as DistortionSettings
    from mipnet.verification.expressions import property_of as property_of
    from mipnet.verification.margin import Margin as Margin
    from mipnet.verification.margin import maximum_margin as maximum_margin
    from mipnet.verification.oracle import Oracle as Oracle
    from mipnet.verification.reach import Reached as Reached
    from mipnet.verification.reach import reach as reach
    from mipnet.verification.robustness import Classes as Classes
    from mipnet.verification.robustness import robustness as robustness
    from mipnet.verification.robustness import robustness_property as robustness_property
    from mipnet.verification.two_networks.agree_on_class import agree_on_class as agree_on_class
    from mipnet.verification.two_networks.agreement import Agreement as Agreement
    from mipnet.verification.two_networks.agreement import agree as agree
    from mipnet.verification.two_networks.compression import Compressed as Compressed
    from mipnet.verification.two_networks.compression import compress as compress
    from mipnet.verification.verdict import Verdict as Verdict
    from mipnet.verification.verify import verify as verify

_HOME = {
    "mipnet.backend.contract": "Backend Event Feature Limits Outcome Session Status",
    "mipnet.backend.installed_backends": "backends get_backend",
    "mipnet.formulations.block": "Block",
    "mipnet.formulations.registry": "encoding linear_map",
    "mipnet.bounds.boxes": "Bounds load_bounds",
    "mipnet.bounds.interval": "Interval interval",
    "mipnet.bounds.linear_rules": "backward lines",
    "mipnet.bounds.propagation": "propagate",
    "mipnet.bounds.user_bounds": "UserBounds",
    "mipnet.model.encoding": "Encoding",
    "mipnet.model.encode": "encode",
    "mipnet.embedding.add_network": "add_network add_predictor",
    "mipnet.embedding.settings": "EmbeddingSettings",
    "mipnet.embedding.winning_class": "argmax_is",
    "mipnet.errors": "MipnetError",
    "mipnet.model.explanation": "Explained Explanation explain",
    "mipnet.network.final_softmax": "FinalSoftmax",
    "mipnet.network.gates": "Gate find_gates",
    "mipnet.network.graph": "Layer Network Node",
    "mipnet.layers": (
        "AdaptiveAvgPool2d Add AvgPool2d AxisDense BatchNorm Clip Concat Conv2d Conv3d ConvTranspose2d Dense Gather LeakyReLU MaxPool2d"
        " Maximum PReLU Permute ReLU Reshape Scale Select SparseMap"
        " TreeEnsemble Window"
    ),
    "mipnet.limits.kept_parts": "keep_parts",
    "mipnet.limits.memory": "memory_limit",
    "mipnet.model.losses": "Loss",
    "mipnet.backend.program": "Program Rows",
    "mipnet.network.properties": "Case Clause Property",
    "mipnet.pruning.smaller.masks": "accuracy critical_masks make_masks random_masks",
    "mipnet.pruning.labelled_images": "LabelledImages",
    "mipnet.pruning.rivals.comparison": "ComparisonSettings compare",
    "mipnet.pruning.smaller.export": "export",
    "mipnet.pruning.smaller.footprint": "Footprint measure",
    "mipnet.pruning.rivals.registry": "RIVALS rival",
    "mipnet.pruning.stepwise.pruning_path": "prune_stepwise",
    "mipnet.pruning.smaller.surgery": "prune",
    "mipnet.pruning.training": "TrainingSettings fine_tune train",
    "mipnet.readers.data": "load",
    "mipnet.readers.files": "read",
    "mipnet.readers.onnx_file": "from_onnx",
    "mipnet.readers.estimators.reader": "from_sklearn",
    "mipnet.readers.torch": "from_torch",
    "mipnet.readers.vnnlib": "read_vnnlib",
    "mipnet.network.polytope_sets": "ConvexHull Polytope",
    "mipnet.network.sets": "Ball Box L1 L2 LInf Samples",
    "mipnet.solving.engine": "solve",
    "mipnet.solving.open_problem": "OpenProblem open_problem",
    "mipnet.solving.result": "Result",
    "mipnet.verification.two_networks.agreement": "Agreement agree",
    "mipnet.verification.two_networks.agree_on_class": "agree_on_class",
    "mipnet.verification.two_networks.compression": "Compressed compress",
    "mipnet.verification.reach": "Reached reach",
    "mipnet.pruning.importance.objective": "Objective",
    "mipnet.pruning.importance.paper_bounds": "PaperBounds",
    "mipnet.pruning.importance.program": "Importance Scores importance",
    "mipnet.pruning.importance.solve_settings": "SolveSettings",
    "mipnet.pruning.importance.weight_path": "spaced_weights weight_path",
    "mipnet.solving.mip_settings": "MipSettings",
    "mipnet.solving.tightening": "TighteningRun tighten",
    "mipnet.verification.activation_maximisation": "ActivationMaximum activation_maximisation",
    "mipnet.verification.counterfactuals.counterfactual": "Counterfactual counterfactual",
    "mipnet.verification.counterfactuals.settings": "CounterfactualSettings",
    "mipnet.verification.distortion": "Distortion minimum_distortion",
    "mipnet.verification.distortion_settings": "DistortionSettings",
    "mipnet.verification.expressions": "property_of",
    "mipnet.verification.margin": "Margin maximum_margin",
    "mipnet.verification.oracle": "Oracle",
    "mipnet.verification.verify": "verify",
    "mipnet.verification.robustness": "Classes robustness robustness_property",
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
