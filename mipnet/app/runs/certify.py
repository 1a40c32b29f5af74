"""Files of ``task: reach``, ``agree``, ``compress``, ``distortion`` and ``margin``: a network, a set of inputs, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import yaml
from pydantic import Field, model_validator

from mipnet.app.files.solve_file import NetworkFile, NetworkSpec, Version, load_as
from mipnet.app.files.source import Override
from mipnet.app.files.types import NotNegative, Option, Part, Positive, Text, Tuple, Whole, choice, expects, says
from mipnet.app.runs.folder import check_folder, new_folder
from mipnet.app.runs.inputs import read_network, try_options
from mipnet.app.runs.leads import largest_lead, nearest_change
from mipnet.app.runs.record import plain
from mipnet.app.runs.verify import RegionSpec, RobustSpec, image_region, region_image
from mipnet.arrays import Array
from mipnet.backend import Backend, get_backend
from mipnet.errors import InputError
from mipnet.network.graph import Network, size
from mipnet.network.sets import Box
from mipnet.pruning.smaller.export import export
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.distortion import DistortionSettings
from mipnet.verification.reach import Extreme, reach
from mipnet.verification.robustness import Classes
from mipnet.verification.two_networks.agreement import Agreement, agree, agree_on_class
from mipnet.verification.two_networks.compression import compress
from mipnet.version import __version__

Number = Annotated[float, Field(allow_inf_nan=False)]
Numbers = Annotated[Number | tuple[Number, ...], Tuple, expects("a number, or a list with one for each input")]
Task = Literal["reach", "agree", "compress", "distortion", "margin"]


class BoxSpec(Part):
    """All inputs between ``lower`` and ``upper``: a number for all, or one for each input in order."""

    lower: Numbers
    upper: Numbers


class EndSpec(Part):
    """The solver for what cheaper stages leave, seconds for everything, and the gap at which an end is found."""

    backend: Text = "highs"
    time_limit: Positive = 60.0
    tolerance: NotNegative = 1e-4
    seed: Whole = 0
    options: Annotated[dict[str, Option], expects("a mapping with the solver's own options, by its own names")] = Field(
        default_factory=dict
    )


class AgreeSpec(Part):
    """What has to agree: outputs (``difference``), ``within`` so much or as they do, or the ``class``, where it leads by ``margin``."""

    about: Annotated[Literal["difference", "class"], choice("difference", "class")] = "difference"
    within: Positive | None = None
    margin: NotNegative = 1e-6


class RangeFile(NetworkFile):
    """A YAML file for one of these commands: a network, and the set as ``region`` around an image or as ``box``.

    ``directions`` is for reach, ``second`` and ``agree`` are for agree, ``save`` (a .safetensors, .pt2 or .onnx file) for compress.
    ``robust`` says whose lead distortion and margin are about; they need a ``region``, whose radius is how far distortion looks.
    """

    mipnet: Version
    task: Annotated[Task, choice("reach", "agree", "compress", "distortion", "margin")]
    network: NetworkSpec
    region: RegionSpec | None = None
    box: BoxSpec | None = None
    directions: Annotated[
        tuple[Annotated[tuple[Number, ...], Tuple], ...] | None, Tuple, expects("a list of rows, such as [[1, -1]], one number an output")
    ] = None
    second: NetworkSpec | None = None
    agree: AgreeSpec | None = None
    save: Text | None = None
    robust: RobustSpec | None = None
    solve: EndSpec = EndSpec()
    output: Text | None = None

    @model_validator(mode="after")
    def _own_keys(self) -> RangeFile:
        takes = {"reach": ("directions",), "agree": ("second", "agree"), "compress": ("save",)}
        for key in ("directions", "second", "agree", "save", "robust"):
            if getattr(self, key) is not None and key not in takes.get(self.task, ("robust",)):
                raise says("`{key}` says nothing to task `{task}`; leave it out", key=key, task=self.task)
        if (self.region is None) == (self.box is None):
            raise says("expected either `region`, around an image, or `box`, with `lower` and `upper`")
        if self.task not in takes and self.region is None:
            raise says("task `{task}` is about an image: expected `region`, not `box`", task=self.task)
        if self.task == "agree" and self.second is None:
            raise says("`second` is missing; expected the network to compare with, as in `network`")
        return self


@dataclass(frozen=True, eq=False)
class Ranged:
    """What came of a file: whether it is proven, a record of all that was found, and what tables show."""

    file: RangeFile
    good: bool
    interrupted: bool
    record: dict[str, Any]
    lines: tuple[str, ...]

    @property
    def status(self) -> int:
        """As exit status: 0 if proven, 1 if not, 130 after Ctrl-C."""
        return 130 if self.interrupted else 0 if self.good else 1


def load_range(path: str | Path, overrides: Sequence[Override | str] = (), task: str | None = None) -> RangeFile:
    """The file, for a command of this name; raises `InputError` in one line, naming file, line and key."""
    file = load_as(RangeFile, path, overrides)
    if task is not None and file.task != task:
        with file.blame("task"):
            raise InputError(f"got `{file.task}`; such a file is for `mipnet {file.task}`")
    return file


def run_range(file: RangeFile) -> Ranged:
    """Answer a file; whatever can be wrong with it is found before the work."""
    if file.output is not None:
        with file.blame("output"):
            check_folder(Path(file.output).expanduser(), (f"{file.task}.yaml", "result.json"))
    with file.blame("solve", "backend"):
        backend = get_backend(file.solve.backend)
    with file.blame("solve", "options"):
        try_options(backend, file.solve.options)
    network = read_network(file)
    if file.task in ("distortion", "margin"):
        return _lead(file, network, backend)
    region = _region(file, network)
    runs: dict[str, Callable[[RangeFile, Network, Box, Backend], Ranged]] = {"reach": _reach, "agree": _agree, "compress": _compress}
    return runs[file.task](file, network, region, backend)


def save(done: Ranged) -> Path | None:
    """Write the folder, whole or not at all, and return where it is; None if the file names none."""
    if done.file.output is None:
        return None
    folder, name = Path(done.file.output).expanduser(), f"{done.file.task}.yaml"
    with done.file.blame("output"), new_folder(folder, (name, "result.json")) as fresh:
        data = done.file.model_dump(mode="json", exclude_none=True)
        for key in ("network", "second"):
            if key in data:
                data[key]["file"] = str(done.file.path(data[key]["file"]).absolute())
        (fresh / name).write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
        (fresh / "result.json").write_text(json.dumps(done.record, indent=2, allow_nan=False) + "\n")
    return folder


def _region(file: RangeFile, network: Network) -> Box:
    if file.region is not None:
        return image_region(file, file.region, network)[0]
    assert file.box is not None
    ends = []
    for key in ("lower", "upper"):
        with file.blame("box", key):
            given = np.asarray(getattr(file.box, key), dtype=np.float64)
            if given.shape not in ((), (size(network.input_shape),)):
                raise InputError(f"got {given.size} numbers; the network has {size(network.input_shape)} inputs")
            ends.append(np.broadcast_to(given, (size(network.input_shape),)).reshape(1, *network.input_shape))
    with file.blame("box"):
        return Box(ends[0], ends[1])


def _lead(file: RangeFile, network: Network, backend: Backend) -> Ranged:
    assert file.region is not None
    given, asked = file.solve, file.robust or RobustSpec()
    settings = DistortionSettings(backend, given.options or None, gap=given.tolerance, seed=given.seed)
    image, own = region_image(file, file.region, network)
    classes = Classes(own if asked.label is None else asked.label, asked.targets)
    with file.blame("robust"):
        if file.task == "distortion":
            found = nearest_change(network, image, classes, file.region, settings, given.time_limit)
        else:
            region = image_region(file, file.region, network)[0]
            found = largest_lead(network, region, classes, settings, given.time_limit)
    good, record, lines = found
    return Ranged(file, good, False, _asked(file, **record), lines)


def _asked(file: RangeFile, **found: Any) -> dict[str, Any]:
    about = {"mipnet": __version__, "task": file.task, "network": str(file.path(file.network.file))}
    return {key: plain(value) for key, value in (about | found).items()}


def _list(x: Array | None) -> Any:
    return None if x is None else x.tolist()


def _reach(file: RangeFile, network: Network, region: Box, backend: Backend) -> Ranged:
    given = file.solve
    with file.blame("directions"):
        found = reach(
            network,
            region,
            file.directions,
            backend=MipSettings(backend, given.options or None),
            time_limit=given.time_limit,
            tolerance=given.tolerance,
            seed=given.seed,
        )

    def end(each: Extreme) -> dict[str, Any]:
        return {"bound": each.bound, "value": each.value, "method": each.method, "point": _list(each.point)}

    rows = [{"least": end(low), "largest": end(high)} for low, high in zip(found.lowest, found.highest, strict=True)]
    lines = [
        f"{k}: {low.bound:.6g} <= least <= {low.value:.6g}, {high.value:.6g} <= largest <= {high.bound:.6g} ({low.method}, {high.method})"
        for k, (low, high) in enumerate(zip(found.lowest, found.highest, strict=True))
    ]
    lines.append(f"{'closed' if found.closed else 'not closed'} to a gap of {found.tolerance:g} in {found.seconds:.1f} s")
    about = {"closed": found.closed, "gap": found.gap, "directions": _list(found.directions), "functions": rows, "seconds": found.seconds}
    return Ranged(file, found.closed, found.interrupted, _asked(file, **about, nodes=found.nodes, parts=found.parts), tuple(lines))


def _agree(file: RangeFile, network: Network, region: Box, backend: Backend) -> Ranged:
    given, asked = file.solve, file.agree or AgreeSpec()
    second = read_network(file, "second")
    common: dict[str, Any] = {"backend": MipSettings(backend, given.options or None), "time_limit": given.time_limit, "seed": given.seed}
    with file.blame("second"):
        if asked.about == "class":
            found = agree_on_class(network, second, region, margin=asked.margin, **common)
            good = found.agree is True
        else:
            found = agree(network, second, region, within=asked.within, tolerance=given.tolerance, **common)
            closed = found.bound - found.largest <= given.tolerance * max(1.0, found.largest)
            good = closed if asked.within is None else found.agree is True
    return Ranged(file, good, found.interrupted, _asked(file, **_agreement(found)), tuple(_told(found)))


def _agreement(found: Agreement) -> dict[str, Any]:
    keys = ("agree", "question", "largest", "method", "shared", "seconds", "parts", "nodes", "backend")
    points = {key: _list(getattr(found, key)) for key in ("point", "first", "second")}
    bound = found.bound if np.isfinite(found.bound) else None
    return {key: getattr(found, key) for key in keys} | points | {"bound": bound}


def _told(found: Agreement) -> list[str]:
    word = {True: "they agree", False: "they do not agree", None: "not decided"}[found.agree]
    by = f" (by {found.method})" if found.method else ""
    if found.question == "class":
        return [f"classes: {word}{by}, {found.seconds:.1f} s"]
    return [f"{word}: {found.largest:.6g} <= largest difference <= {found.bound:.6g}{by}, {found.seconds:.1f} s"]


def _compress(file: RangeFile, network: Network, region: Box, backend: Backend) -> Ranged:
    given = file.solve
    target = None if file.save is None else Path(file.save).expanduser()
    if target is not None and not target.absolute().parent.is_dir():
        with file.blame("save"):
            raise InputError(f"no folder `{target.parent}`; create it first")
    with file.blame("network"):
        found = compress(network, region, backend=MipSettings(backend, given.options or None), time_limit=given.time_limit, seed=given.seed)
    lines = [
        f"{each.name}: {each.units} units, {each.silent} silent, {each.active} active, {each.changing} changing, {each.kept} kept"
        for each in found.layers
    ]
    lines += [f"{network.parameters:,} parameters became {found.network.parameters:,}", *_told(found.agreement)]
    if target is not None and found.agreement.agree is not True:
        lines.append(f"{target} is not written: the networks are not proven to be equal")
        target = None
    if target is not None:
        with file.blame("save"):
            export(found.module(torch.float64), target, torch.zeros(1, *network.input_shape, dtype=torch.float64))
        lines.append(f"written to {target}")
    about = {
        "layers": [asdict(each) for each in found.layers],
        "complete": found.complete,
        "rounds": found.rounds,
        "parameters": [network.parameters, found.network.parameters],
        "agreement": _agreement(found.agreement),
        "saved": None if target is None else str(target),
        "seconds": found.seconds,
    }
    return Ranged(file, found.agreement.agree is True, found.agreement.interrupted, _asked(file, **about), tuple(lines))
