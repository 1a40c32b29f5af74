"""The YAML file as typed, frozen objects; every error names the file, the line, the key, what was given and what was expected.

`load_spec` reads one, `Spec.model_json_schema` describes it.  Relative paths are relative to the file, ``output`` to the folder
that mipnet is started in.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from mipnet.app.files.source import Keys, Override, Source, parse_set, read_source, shown
from mipnet.app.files.specagree import BallsSpec
from mipnet.app.files.specpath import PathSpec
from mipnet.app.files.types import Count, Layer, Names, NotNegative, Option, Part, Positive, Text, Tuple, Whole, choice, expects, says
from mipnet.errors import MipnetError, SpecError

OTHERS = ("compare", "verify", "reach", "agree", "compress", "distortion", "margin")
"""Tasks with a command of their own."""


def _task(value: Any) -> Any:
    if value in OTHERS:
        raise says("such a file is for `mipnet {value}`", value=value)
    return value


class NetworkSpec(Part):
    """Where the network comes from: a .pt2 or .onnx file, or weights with the shape of one input and the layers they belong to."""

    file: Text
    input_shape: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...] | None,
        Field(min_length=1),
        Tuple,
        expects("the positive sizes of one sample, such as [1, 28, 28]"),
    ] = None
    layers: Annotated[
        tuple[Layer, ...] | None, Field(min_length=1), Tuple, expects("a list of mappings with `name`, `type` and arguments")
    ] = None


class ImagesSpec(Part):
    """Where images with labels come from."""

    source: Annotated[Literal["digits", "mnist", "fashion-mnist", "npz", "idx"], choice("digits", "mnist", "fashion-mnist", "npz", "idx")]
    root: Text | None = None
    file: Text | None = None
    images: Text | None = None
    labels: Text | None = None
    scale: Positive | None = None
    classes: Count | None = None
    split: Annotated[Literal["train", "test"], choice("train", "test")] = "train"

    @model_validator(mode="after")
    def _no_idle_keys(self) -> ImagesSpec:
        takes = {"npz": "root file images labels scale classes", "idx": "root images labels scale classes", "digits": ""}
        for key in ("root", "file", "images", "labels", "scale", "classes"):
            if getattr(self, key) is not None and key not in takes.get(self.source, "root scale").split():
                raise says("`{key}` says nothing about source `{source}`; leave it out", key=key, source=self.source)
        return self


class DataSpec(ImagesSpec):
    """Which images the program is written for, and on which ones its result is judged (``holdout``)."""

    per_class: Count | None = None
    total: Count | None = None
    pick: Annotated[Literal["first", "random", "confident", "uncertain"], choice("first", "random", "confident", "uncertain")] = "first"
    seed: Whole = 0
    holdout: Annotated[Literal["train", "test", "none"], choice("train", "test", "none")] = "test"

    @model_validator(mode="after")
    def _one_size(self) -> DataSpec:
        if (self.per_class is None) == (self.total is None):
            given = "neither of `per_class` and `total` is" if self.total is None else "both `per_class` and `total` are"
            raise says("{given} given; expected one of them", given=given)
        return self


class GatesSpec(Part):
    """Which layers have scores, and whether these are any numbers in [0, 1] or 0 and 1 alone."""

    layers: Annotated[Literal["all"] | Names, Field(min_length=1), Tuple, expects("`all` or a list of layer names")] = "all"
    kind: Annotated[Literal["continuous", "binary"], choice("continuous", "binary")] = "continuous"


class FormulationSpec(Part):
    """How each kind of layer is written down, and which bounds are its big-Ms.

    ``parts`` is for ``relu: partition``, ``pattern`` for ``relu: frozen``.
    """

    relu: Text | None = None
    leakyrelu: Text | None = None
    clip: Text | None = None
    maxpool2d: Text | None = None
    parts: Count | None = None
    bounds: Annotated[Literal["paper", "sound", "interval", "crown", "alpha"], choice("paper", "sound", "interval", "crown", "alpha")] = (
        "paper"
    )
    pattern: Annotated[Literal["free", "upper", "paper"], choice("free", "upper", "paper")] = "free"
    epsilon: NotNegative = 1e-5

    @property
    def names(self) -> dict[str, str | int]:
        """Formulation by layer kind, and parts: those that are given."""
        keys = ("relu", "leakyrelu", "clip", "maxpool2d", "parts")
        return {key: value for key in keys if (value := getattr(self, key)) is not None}


class ObjectiveSpec(Part):
    """The loss, and its weight against sparsity: a larger weight prunes less."""

    loss: Annotated[Literal["cross-entropy", "margin"], choice("cross-entropy", "margin")] = "cross-entropy"
    margin: NotNegative = 1.0
    weight: NotNegative = 5.0
    normalize: Annotated[Literal["units", "parameters", "paper"], choice("units", "parameters", "paper")] = "units"
    layers: Annotated[Literal["paper", "all"], choice("paper", "all")] = "paper"


class SolveSpec(Part):
    """The solver, when it stops (seconds, relative gap, nodes, MiB; no limit if left out), and its own options by its own names.

    ``decouple`` makes many small programs of the large one, in ``workers`` processes (one a core if left out, 0 for none of their
    own), or wherever a running dask ``scheduler`` sends them; limits hold for each of them.  ``path`` asks the
    question at many values of a parameter, each under the same limits.
    """

    backend: Text = "highs"
    time_limit: Positive | None = None
    mip_gap: NotNegative = 1e-4
    nodes: Whole | None = None
    memory: Annotated[float, Field(ge=1, allow_inf_nan=False), expects("a number of MiB, at least 1")] | None = None
    start: Annotated[Literal["forward", "search", "none"], choice("forward", "search", "none")] = "forward"
    decouple: Annotated[Literal["none", "class", "layer"], choice("none", "class", "layer")] = "none"
    workers: Whole | None = None
    scheduler: Text | None = None
    path: PathSpec | None = None
    options: Annotated[dict[str, Option], expects("a mapping with the solver's own options, by its own names")] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _no_idle_keys(self) -> SolveSpec:
        if self.path is not None and self.decouple != "none":
            raise says("`path` is for a question that is solved as one program, and `decouple` makes many; leave one of them out")
        for key in ("workers", "scheduler"):
            if self.decouple == "none" and getattr(self, key) is not None:
                raise says("`{key}` is for many programs, and there is one without `decouple`; leave it out", key=key)
        return self

    @property
    def seconds(self) -> float:
        """The time limit, infinite if there is none."""
        return math.inf if self.time_limit is None else self.time_limit


class Share(Part):
    """Prune at least this share of the parameters."""

    params: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class PruneSpec(Part):
    """Units that score below the threshold go; ``agree`` asks whether the class stays without them, all around held-out images."""

    threshold: Annotated[
        Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | Literal["mean"] | Share,
        expects("a number in [0, 1], `mean`, or {params: share} with a share in [0, 1)"),
    ] = 0.1
    agree: BallsSpec | None = None

    @property
    def value(self) -> float | str | dict[str, float]:
        """The threshold as `mipnet.pruning.smaller.masks.make_masks` takes it."""
        return {"params": self.threshold.params} if isinstance(self.threshold, Share) else self.threshold


Version = Annotated[Literal[1], BeforeValidator(lambda v: None if isinstance(v, bool) else v), expects("1, the version of this format")]


class SpecFile(Part):
    """A whole file: it knows where its keys stand."""

    _source: Source | None = PrivateAttr(default=None)

    def path(self, name: str) -> Path:
        """A path of the file, relative to the file."""
        return (self._source.folder if self._source else Path()) / Path(name).expanduser()

    @contextmanager
    def blame(self, *keys: str | int, only: type[MipnetError] = MipnetError) -> Iterator[None]:
        """Whatever goes wrong inside is put down to these keys: their place in the file goes in front of the message."""
        try:
            yield
        except only as error:
            if isinstance(error, SpecError):
                raise
            name = ".".join(map(str, keys))
            place = self._source.at(tuple(keys)) + ": " if self._source else ""
            raise type(error)(f"{place}{name}: {error}") from error


class NetworkFile(SpecFile):
    """A file that is about one network."""

    mipnet: Version
    task: str
    network: NetworkSpec


F = TypeVar("F", bound=SpecFile)


class Spec(NetworkFile):
    """A YAML file of mipnet: which network, which data, what to ask, how to solve it and where the results go."""

    task: Annotated[Literal["importance"], choice("importance"), BeforeValidator(_task)]
    data: DataSpec
    gates: GatesSpec = GatesSpec()
    formulation: FormulationSpec = FormulationSpec()
    objective: ObjectiveSpec = ObjectiveSpec()
    solve: SolveSpec = SolveSpec()
    prune: PruneSpec = PruneSpec()
    output: Text | None = None

    def resolved(self) -> dict[str, Any]:
        """The spec as plain data with every default filled in and every path absolute: it can be run again from anywhere."""
        data = self.model_dump(mode="json", exclude_none=True, by_alias=True)
        data["network"]["file"] = str(self.path(self.network.file))
        if self.data.root is not None or self.data.source in ("npz", "idx"):
            data["data"]["root"] = str(self.path(self.data.root or "."))
        if self.output is not None:
            data["output"] = str(Path(self.output).expanduser().absolute())
        return data


def load_spec(path: str | Path, overrides: Sequence[Override | str] = ()) -> Spec:
    """The spec of a YAML file with ``key.sub=value`` overrides; raises `SpecError` in one line, naming file, line and key."""
    return load_as(Spec, path, overrides)


def load_as(kind: type[F], path: str | Path, overrides: Sequence[Override | str] = ()) -> F:
    """`load_spec` for a file of another kind."""
    source = read_source(path, [parse_set(o) if isinstance(o, str) else o for o in overrides])
    try:
        spec = kind.model_validate(source.data)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise SpecError(_line_of(kind, source, min(found, key=_urgency))) from None
    except RecursionError:
        raise SpecError(f"{source.name}: it is nested too deeply, or refers to itself") from None
    spec._source = source
    return spec


def _urgency(error: ErrorDetails) -> int:
    """What to tell first: a file for another task, then a key that is not known."""
    return 0 if error["loc"] == ("task",) and error["type"] == "expected" else 1 if error["type"] == "extra_forbidden" else 2


def _line_of(kind: type[SpecFile], source: Source, error: ErrorDetails) -> str:
    keys: Keys = error["loc"]
    name, place, got = ".".join(map(str, keys)), source.at(keys), shown(error["input"])
    if error["type"] == "extra_forbidden":
        return f"{place}: {name}: unknown key; {_suggestion(kind, keys)}"
    if error["type"] == "missing":
        return f"{place}: {name}: this key is missing"
    if error["type"] == "expected" and not error["msg"].startswith("expected"):
        return f"{place}: {name}: {'' if isinstance(error['input'], dict) else f'got {got}; '}{error['msg']}"
    expected = error["msg"] if error["type"] == "expected" else f"expected a mapping with {', '.join(_known(kind, keys))}"
    return f"{place}: {name}: got {got}; {expected}"


def _known(kind: type[SpecFile], keys: Keys) -> list[str]:
    """The keys that the mapping at these keys may have."""
    model: Any = kind
    for key in keys:
        field = getattr(model, "model_fields", {}).get(str(key))
        given = field and (field.annotation, *get_args(field.annotation))
        model = next((part for part in given or () if hasattr(part, "model_fields")), None)
    return [field.alias or name for name, field in getattr(model, "model_fields", {}).items()]


def _suggestion(kind: type[SpecFile], keys: Keys) -> str:
    known = _known(kind, keys[:-1])
    close = difflib.get_close_matches(str(keys[-1]), known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"expected one of {', '.join(known)}"
