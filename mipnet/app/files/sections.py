"""The sections of YAML files: the mappings below their keys, with the default of every key."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from mipnet.app.files.values import (
    Count,
    LayerMapping,
    ListAsTuple,
    MemorySize,
    NameList,
    NotNegative,
    NumberOrList,
    Positive,
    Seconds,
    Section,
    SolverOptions,
    Text,
    ValidRange,
    Whole,
    choice,
    expects,
    key_error,
    value_error,
)
from mipnet.errors import InputError


class NetworkSpec(Section):
    """The network: a .pt2 or .onnx file, or a file of weights with the shape of one input and the layers that the weights belong to.

    With ``outputs: logits`` its outputs are what goes into the softmax at the end of the file.
    """

    relative_to_file: ClassVar[tuple[str, ...]] = ("file",)

    file: Text
    input_shape: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...] | None,
        Field(min_length=1),
        ListAsTuple,
        expects("the positive sizes of one sample, such as [1, 28, 28]"),
    ] = None
    layers: Annotated[
        tuple[LayerMapping, ...] | None, Field(min_length=1), ListAsTuple, expects("a list of mappings with `name`, `type` and arguments")
    ] = None
    outputs: Annotated[Literal["file", "logits"], choice("file", "logits")] = "file"


class ImagesSpec(Section):
    """Labelled images: a built-in data set, or files in the folder ``root``."""

    relative_to_file: ClassVar[tuple[str, ...]] = ("root",)

    source: Annotated[Literal["digits", "mnist", "fashion-mnist", "npz", "idx"], choice("digits", "mnist", "fashion-mnist", "npz", "idx")]
    root: Text | None = None
    file: Text | None = None
    images: Text | None = None
    labels: Text | None = None
    scale: Positive | None = None
    channels: Annotated[Literal["first", "last"] | None, choice("first", "last")] = None
    classes: Count | None = None
    split: Annotated[Literal["train", "test"], choice("train", "test")] = "train"

    @model_validator(mode="before")
    @classmethod
    def _own_files_lie_beside_the_file(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("source") in ("npz", "idx") and data.get("root") is None:
            return {**data, "root": "."}
        return data

    @model_validator(mode="after")
    def _no_key_without_effect(self) -> ImagesSpec:
        takes = {"npz": "root file images labels scale channels classes", "idx": "root images labels scale channels classes", "digits": ""}
        for key in ("root", "file", "images", "labels", "scale", "channels", "classes"):
            if getattr(self, key) is not None and key not in takes.get(self.source, "root scale").split():
                raise key_error(type(self), key, getattr(self, key), f"it has no effect for source `{self.source}`; leave it out")
        return self


class DataSpec(ImagesSpec):
    """The images that the program is written for, and the split that the smaller network is evaluated on (``holdout``)."""

    per_class: Count | None = None
    total: Count | None = None
    pick: Annotated[Literal["first", "random", "confident", "uncertain"], choice("first", "random", "confident", "uncertain")] = "first"
    seed: Whole = 0
    holdout: Annotated[Literal["train", "test", "none"], choice("train", "test", "none")] = "test"

    @model_validator(mode="after")
    def _one_size(self) -> DataSpec:
        if (self.per_class is None) == (self.total is None):
            given = "neither of `per_class` and `total` is" if self.total is None else "both `per_class` and `total` are"
            raise value_error(f"{given} given; expected one of them")
        return self


class GatesSpec(Section):
    """The layers whose units have scores, and whether scores are any numbers in [0, 1] or only 0 and 1."""

    layers: Annotated[Literal["all"] | NameList, Field(min_length=1), ListAsTuple, expects("`all` or a list of layer names")] = "all"
    kind: Annotated[Literal["continuous", "binary"], choice("continuous", "binary")] = "continuous"


class ObjectiveSpec(Section):
    """The loss, and its weight against sparsity: a larger weight prunes less."""

    loss: Annotated[Literal["cross-entropy", "margin"], choice("cross-entropy", "margin")] = "cross-entropy"
    margin: NotNegative = 1.0
    weight: NotNegative = 5.0
    normalize: Annotated[Literal["units", "parameters", "paper"], choice("units", "parameters", "paper")] = "units"
    layers: Annotated[Literal["paper", "all"], choice("paper", "all")] = "paper"


def _different(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] == ends[1]:
        raise ValueError("equal ends")
    return ends


PathEnds = Annotated[
    tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], Annotated[float, Field(gt=0, allow_inf_nan=False)]],
    ListAsTuple,
    AfterValidator(_different),
    expects("two different numbers greater than 0, such as [0.5, 20]"),
]

PATH_PARAMETER_EXPECTED = "expected one parameter, such as `lambda: [0.5, 20]`"


class PathSpec(Section):
    """A path of ``points`` loss weights from the first to the last value of ``lambda``, spaced by equal factors."""

    lambda_: PathEnds | None = Field(None, alias="lambda")
    points: Annotated[int, Field(ge=2), expects("a whole number of at least 2")] = 8

    @model_validator(mode="after")
    def _one_parameter(self) -> PathSpec:
        if self.lambda_ is None:
            raise value_error(PATH_PARAMETER_EXPECTED)
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """The first and the last loss weight."""
        if self.lambda_ is None:
            raise InputError(PATH_PARAMETER_EXPECTED)
        return self.lambda_


class SolveSpec(Section):
    """The solver, its limits (seconds, relative gap, nodes, MiB; no limit if left out), and its own options by its own names.

    ``time_limit`` is that of the whole run: reading, writing the programs, solving them, ``prune.agree`` and accuracies.

    ``memory_limit`` is the limit of the whole process, a share of what is free if left out; ``memory`` is that of the solver's own memory.

    ``decouple`` solves many small programs instead of the large one, in ``workers`` processes (one per core if left out, 0 for none), or
    on the workers of a running dask ``scheduler``; ``path`` solves the program at many loss weights.  The time is then divided among
    the programs, and the other limits hold for each.
    """

    backend: Text = "highs"
    time_limit: Seconds | None = None
    mip_gap: NotNegative = 1e-4
    mip_gap_abs: NotNegative = 0.0
    nodes: Whole | None = None
    memory_limit: MemorySize | None = None
    memory: Annotated[float, Field(ge=1, allow_inf_nan=False), expects("a number of MiB, at least 1")] | None = None
    start: Annotated[Literal["forward", "search", "none"], choice("forward", "search", "none")] = "forward"
    decouple: Annotated[Literal["none", "class", "layer"], choice("none", "class", "layer")] = "none"
    workers: Whole | None = None
    scheduler: Text | None = None
    path: PathSpec | None = None
    options: SolverOptions = Field(default_factory=dict)

    @model_validator(mode="after")
    def _no_key_without_effect(self) -> SolveSpec:
        if self.path is not None and self.decouple != "none":
            message = "`path` is for a task that is solved as one program, and `decouple` makes many; leave one of them out"
            raise key_error(type(self), "decouple", self.decouple, message)
        for key in ("workers", "scheduler"):
            if self.decouple == "none" and getattr(self, key) is not None:
                message = "it is for many programs, and there is one without `decouple`; leave it out"
                raise key_error(type(self), key, getattr(self, key), message)
        return self

    @property
    def seconds(self) -> float:
        """The time limit, infinite if there is none."""
        return math.inf if self.time_limit is None else self.time_limit


class ParameterShare(Section):
    """Prune at least this share of the parameters."""

    params: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class BallsSpec(Section):
    """A proof per held-out image, for the first ``count`` images: within ``radius`` in every pixel, pruning does not change the class.

    Inputs are clipped to ``clip``, or to the smallest and the largest pixel of the held-out images.  ``time_limit`` is in seconds for all
    images together; null is no limit other than that of the run.
    """

    radius: Positive
    count: Count = 4
    clip: ValidRange | None = None
    time_limit: Seconds | None = 40.0


class PruneSpec(Section):
    """Units with a score below the threshold are pruned; ``agree`` asks for a proof that the class stays the same near held-out images."""

    threshold: Annotated[
        Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | Literal["mean"] | ParameterShare,
        expects("a number in [0, 1], `mean`, or {params: share} with a share in [0, 1)", ("mean",)),
    ] = 0.1
    agree: BallsSpec | None = None

    @property
    def value(self) -> float | str | dict[str, float]:
        """The threshold as `mipnet.pruning.smaller.masks.make_masks` takes it."""
        return {"params": self.threshold.params} if isinstance(self.threshold, ParameterShare) else self.threshold


class BoxSpec(Section):
    """The inputs between ``lower`` and ``upper``: one number for all inputs, or a list with one number per input."""

    lower: NumberOrList
    upper: NumberOrList


class RegionSpec(Section):
    """The inputs within ``radius`` of image ``index`` in the norm, clipped to the valid range ``clip`` if it is given."""

    data: ImagesSpec
    index: Whole = 0
    norm: Annotated[Literal["linf", "l1", "l2"], choice("linf", "l1", "l2")] = "linf"
    radius: Positive
    clip: ValidRange | None = None


class RobustSpec(Section):
    """The class that should stay the largest (that of the image if left out), and the classes that may overtake it (all others)."""

    label: Whole | None = None
    targets: (
        Annotated[
            tuple[Annotated[int, Field(ge=0)], ...],
            Field(min_length=1),
            ListAsTuple,
            expects("a list of classes, whole numbers of at least 0"),
        ]
        | None
    ) = None
