"""``mipnet compare``: one's own scores, solved for or taken from a run folder, against rivals at several shares of pruned parameters.

A file of ``task: compare`` asks in the sections of a solve file, or names a run folder (``scores``), whose network and images
are taken with its scores.  Rivals see the images of the program; all are judged on the held-out ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import xarray as xr
import yaml
from pydantic import AfterValidator, Field

from mipnet.app.figures import save_curve
from mipnet.app.files.solve_file import (
    DataSpec,
    FormulationSpec,
    GatesSpec,
    NetworkSpec,
    ObjectiveSpec,
    SolveSpec,
    Spec,
    SpecFile,
    Version,
    load_as,
    load_spec,
)
from mipnet.app.files.source import Override
from mipnet.app.files.types import Count, Names, Part, Text, Tuple, Whole, choice, expects, says
from mipnet.app.runs.folder import check_folder, new_folder
from mipnet.app.runs.inputs import Asked, ask
from mipnet.app.runs.record import plain, to_json
from mipnet.app.runs.solve import run_importance
from mipnet.backend import OnEvent, Status
from mipnet.errors import InputError
from mipnet.network.gates import Gate, find_gates
from mipnet.pruning.rivals.comparison import ComparisonSettings, ComparisonTable, compare
from mipnet.pruning.rivals.registry import RIVALS, get_rival
from mipnet.pruning.smaller.ranking import ScoreNormalization, at_share, check_scores
from mipnet.version import __version__

FILES = ("compare.yaml", "result.json", "scores.nc", "table.md", "curve.svg", "curve.png")
"""What the folder of a comparison holds: the spec, the numbers, one's own scores, the table, and the curve if matplotlib is there."""

ASKING = ("network", "data", "gates", "formulation", "objective", "solve")
"""The sections of a solve file, which ``scores`` makes needless."""


def _known(names: Any) -> Any:
    try:
        for name in () if names == "all" else names:
            get_rival(name).check()
    except InputError as error:
        raise says("{error}", error=str(error)) from None
    return names


def _once(values: Any) -> Any:
    if isinstance(values, tuple) and (twice := [value for place, value in enumerate(values) if value in values[:place]]):
        raise says("{value} is in it twice; expected each once", value=twice[0])
    return values


ShareOf = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False), expects("a share between 0 and 1")]


class CompareSpec(Part):
    """Which rivals, at which shares of pruned parameters; ``normalize`` says how one's own scores compare layers.

    A rival that draws does so ``repeats`` times, with seeds from ``seed`` on.
    """

    rivals: Annotated[
        Literal["all"] | Names,
        Field(min_length=1),
        Tuple,
        expects(f"`all` or a list of {', '.join(RIVALS)}"),
        AfterValidator(_known),
        AfterValidator(_once),
    ] = "all"
    shares: Annotated[
        tuple[ShareOf, ...],
        Field(min_length=1),
        Tuple,
        expects("a list of shares between 0 and 1, such as [0.2, 0.4]"),
        AfterValidator(_once),
    ] = (0.2, 0.3, 0.4, 0.5, 0.6)
    normalize: Annotated[ScoreNormalization, choice(*get_args(ScoreNormalization))] = "none"
    repeats: Count = 5
    seed: Whole = 0


class Comparison(SpecFile):
    """A YAML file for `mipnet compare`: the question of a solve file, or the run folder ``scores``; then whom to compare with."""

    mipnet: Version
    task: Annotated[Literal["compare"], choice("compare")]
    scores: Text | None = None
    network: NetworkSpec | None = None
    data: DataSpec | None = None
    gates: GatesSpec | None = None
    formulation: FormulationSpec | None = None
    objective: ObjectiveSpec | None = None
    solve: SolveSpec | None = None
    compare: CompareSpec = CompareSpec()
    output: Text | None = None

    @property
    def asking(self) -> dict[str, Part]:
        """The sections of a solve file that are given."""
        return {name: part for name in ASKING if (part := getattr(self, name)) is not None}


@dataclass(frozen=True, eq=False)
class Compared:
    """What a comparison found.  Without a point of the solver there is no ``table``; ``run`` tells of the solve or the run folder."""

    file: Comparison
    spec: Spec
    scores: xr.Dataset | None
    table: ComparisonTable | None
    run: Mapping[str, Any]

    @property
    def status(self) -> int:
        """As exit status: 0 if the scores come from a point that survived its replay, 1 if not, 130 after Ctrl-C in the solve."""
        interrupted = self.file.scores is None and self.run["status"] == Status.INTERRUPTED.value
        return 130 if interrupted else 0 if self.table is not None and self.run["verified"] else 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What should be known before the table is believed."""
        if self.table is None:
            return ("no point was found, so there is nothing to compare: give it more time, or fewer images",)
        held = f"the held-out images are of the `{self.spec.data.split}` split, which holds those of the scores too"
        return (
            *((held,) if self.spec.data.holdout == self.spec.data.split else ()),
            *(() if self.run["verified"] else ("the scores come from a point that did not survive its replay: do not trust them",)),
        )


def load_comparison(path: str | Path, overrides: Sequence[Override | str] = ()) -> Comparison:
    """The comparison of a YAML file; raises `InputError` in one line, naming file, line and key."""
    file = load_as(Comparison, path, overrides)
    if file.scores is not None:
        for name in file.asking:
            with file.blame(name):
                raise InputError("`scores` brings this section from its run folder; leave it out, or leave `scores` out")
        return file
    for name in ("network", "data"):
        with file.blame(name):
            if name not in file.asking:
                raise InputError("this key is missing; a comparison needs `network` and `data`, or the run folder `scores`")
    return file


def run_comparison(file: Comparison, on_event: OnEvent | None = None, tell: Callable[[str], None] = lambda what: None) -> Compared:
    """Find scores and compare them; whatever can be wrong with the file is found before anything is solved.

    ``on_event`` hears of the solve, ``tell`` of each rival when it begins.
    """
    if file.output is not None:
        with file.blame("output"):
            check_folder(Path(file.output).expanduser(), FILES)
    stored = None if file.scores is None else Path(file.scores).expanduser()
    spec = _spec(file) if stored is None else _stored_spec(file, stored)
    with file.blame(*(("solve", "path") if stored is None else ("scores",))):
        if spec.solve.path is not None:
            raise InputError("a comparison is about one set of scores, and a path has many; leave it out")
    asked = ask(spec)
    gates = find_gates(asked.network, spec.gates.layers)
    _check(file, spec, asked, gates)
    if stored is None:
        done = run_importance(spec, on_event)
        scores, run = done.scores, to_json(done)
    else:
        scores, run = _stored(file, stored, gates)
    table = None if scores is None else _table(file, asked, gates, scores, tell)
    return Compared(file, spec, scores, table, run)


def _spec(file: Comparison) -> Spec:
    """The solve file inside a comparison."""
    spec = Spec(mipnet=1, task="importance", **file.asking)  # type: ignore[arg-type]
    spec._source = file._source
    return spec


def _stored_spec(file: Comparison, folder: Path) -> Spec:
    with file.blame("scores"):
        if missing := [name for name in ("model.yaml", "result.json", "scores.nc") if not (folder / name).is_file()]:
            raise InputError(f"`{folder}` has no `{missing[0]}`; expected a run folder of `mipnet solve` with scores")
        return load_spec(folder / "model.yaml")


def _stored(file: Comparison, folder: Path, gates: tuple[Gate, ...]) -> tuple[xr.Dataset, dict[str, Any]]:
    """Scores and record of a run folder."""
    with file.blame("scores"):
        try:
            with xr.open_dataset(folder / "scores.nc", engine="netcdf4") as opened:
                scores = opened.load()
            run = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            kept = {key: run[key] for key in ("status", "verified")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"`{folder}` cannot be read ({error}); expected a run folder of `mipnet solve`") from None
        check_scores(gates, scores)
    return scores, run | kept


def _check(file: Comparison, spec: Spec, asked: Asked, gates: tuple[Gate, ...]) -> None:
    """Raise for what would be found wrong only after the solve."""
    blamed = file if file.scores is None else spec
    with blamed.blame("data", "holdout"):
        if asked.holdout is None:
            raise InputError("got none; expected `train` or `test`: masks are compared on held-out images")
    with file.blame("compare", "shares"):
        same = xr.Dataset({gate.name: (gate.dim, np.ones(gate.units)) for gate in gates})
        at_share(asked.network, gates, same, max(file.compare.shares))


def _table(file: Comparison, asked: Asked, gates: tuple[Gate, ...], scores: xr.Dataset, tell: Callable[[str], None]) -> ComparisonTable:
    given, holdout = file.compare, asked.holdout
    assert holdout is not None
    with file.blame("compare"):
        return compare(
            asked.network,
            gates,
            scores,
            asked.images,
            holdout,
            rivals=None if given.rivals == "all" else given.rivals,
            shares=given.shares,
            settings=ComparisonSettings(
                normalize=given.normalize,
                repeats=given.repeats,
                seed=given.seed,
                on_rival=lambda rival: tell(f"comparing with {rival}"),
            ),
        )


def to_record(done: Compared) -> dict[str, Any]:
    """All numbers as plain JSON data: the rows of the table, and under ``run`` what is known of the solve."""
    table = {} if done.table is None else done.table.to_dict()
    beaten = {} if done.table is None else {f"{target:g}": done.table.beaten(target) for target in done.table.targets}
    record = {"mipnet": __version__, "task": "compare", **table, "beaten": beaten, "notes": done.notes, "run": dict(done.run)}
    return {key: plain(value) for key, value in record.items()} | {"output": done.file.output}


def resolved(done: Compared) -> dict[str, Any]:
    """The file as plain data with every default filled in and every path absolute: it can be run again from anywhere."""
    data = done.file.model_dump(mode="json", exclude_none=True)
    for key in ("output", "scores"):
        if key in data:
            data[key] = str(Path(data[key]).expanduser().absolute())
    return data | ({} if done.file.scores else {name: part for name, part in done.spec.resolved().items() if name in ASKING})


def save(done: Compared) -> Path | None:
    """Write the folder, whole or not at all, and return where it is; None if the file names none, or there is no table."""
    if done.file.output is None or done.table is None or done.scores is None:
        return None
    folder = Path(done.file.output).expanduser()
    with done.file.blame("output"), new_folder(folder, FILES) as fresh:
        (fresh / "compare.yaml").write_text(yaml.safe_dump(resolved(done), sort_keys=False, allow_unicode=True))
        (fresh / "result.json").write_text(json.dumps(to_record(done), indent=2, allow_nan=False) + "\n")
        (fresh / "table.md").write_text(done.table.to_markdown())
        done.scores.to_netcdf(fresh / "scores.nc", engine="netcdf4")
        save_curve(done.table, fresh / "curve.svg", fresh / "curve.png")
    return folder
