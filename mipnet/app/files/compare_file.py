"""The YAML file of `mipnet compare`: the sections of a solve file, or a run folder with scores; the rivals, and the shares to prune."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field

from mipnet.app.files.base import SpecFile
from mipnet.app.files.formulation_section import FormulationSpec
from mipnet.app.files.sections import DataSpec, GatesSpec, NetworkSpec, ObjectiveSpec, SolveSpec
from mipnet.app.files.solve_file import SolveFile
from mipnet.app.files.values import Count, ListAsTuple, NameList, Section, Text, Whole, choice, expects, value_error
from mipnet.app.tasks import IMPORT_HINT
from mipnet.errors import InputError
from mipnet.pruning.rivals.registry import RIVALS
from mipnet.pruning.smaller.ranking import ScoreNormalization

SOLVE_SECTIONS = ("network", "data", "gates", "formulation", "objective", "solve")
"""The sections of a solve file, which are left out if ``scores`` is given."""


def _known_rivals(names: Any) -> Any:
    try:
        for name in () if names == "all" else names:
            if name not in RIVALS:
                raise InputError(f"no rival is called `{name}`; expected one of {', '.join(RIVALS)}; {IMPORT_HINT}")
            RIVALS[name].check()
    except InputError as error:
        raise value_error(str(error)) from None
    return names


def _no_repetition(values: Any) -> Any:
    if isinstance(values, tuple) and (repeated := [value for place, value in enumerate(values) if value in values[:place]]):
        raise value_error(f"{repeated[0]} is in it twice; expected each once")
    return values


PrunedShare = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False), expects("a share between 0 and 1")]


class CompareSpec(Section):
    """The rivals, and the shares of pruned parameters; ``normalize`` says how scores of different layers are made comparable.

    A rival that draws random numbers runs ``repeats`` times, with the seeds ``seed``, ``seed + 1``, and so on.
    """

    rivals: Annotated[
        Literal["all"] | NameList,
        Field(min_length=1),
        ListAsTuple,
        expects(f"`all` or a list of {', '.join(RIVALS)}"),
        AfterValidator(_known_rivals),
        AfterValidator(_no_repetition),
    ] = "all"
    shares: Annotated[
        tuple[PrunedShare, ...],
        Field(min_length=1),
        ListAsTuple,
        expects("a list of shares between 0 and 1, such as [0.2, 0.4]"),
        AfterValidator(_no_repetition),
    ] = (0.2, 0.3, 0.4, 0.5, 0.6)
    normalize: Annotated[ScoreNormalization, choice(*get_args(ScoreNormalization))] = "none"
    repeats: Count = 5
    seed: Whole = 0


class CompareFile(SpecFile):
    """A YAML file for `mipnet compare`: the sections of a solve file or the run folder ``scores``, and what to compare with."""

    relative_to_start: ClassVar[tuple[str, ...]] = ("output", "scores")

    task: Annotated[Literal["compare"], choice("compare")]
    scores: Text | None = None
    network: NetworkSpec | None = None
    data: DataSpec | None = None
    gates: GatesSpec | None = None
    formulation: FormulationSpec | None = None
    objective: ObjectiveSpec | None = None
    solve: SolveSpec | None = None
    compare: CompareSpec = CompareSpec()

    @property
    def solve_sections(self) -> dict[str, Section]:
        """The sections of a solve file that are given."""
        return {name: section for name in SOLVE_SECTIONS if (section := getattr(self, name)) is not None}

    def solve_file(self) -> SolveFile:
        """Return the solve file that the sections make up."""
        file = SolveFile(mipnet=1, task="importance", **self.solve_sections)  # type: ignore[arg-type]
        file._source = self._source
        return file

    def check(self) -> None:
        """Raise `InputError` unless there is either ``scores``, or ``network`` and ``data``."""
        for name in self.solve_sections if self.scores is not None else ():
            with self.blame(name):
                raise InputError("`scores` brings this section from its run folder; leave it out, or leave `scores` out")
        for name in ("network", "data") if self.scores is None else ():
            with self.blame(name):
                if name not in self.solve_sections:
                    raise InputError("this key is missing; a comparison needs `network` and `data`, or the run folder `scores`")

    def resolved(self) -> dict[str, Any]:
        """Return the file as plain data with all defaults, those of the sections of a solve file included, and with absolute paths."""
        data = super().resolved()
        if self.scores is not None:
            return data
        sections = {name: section for name, section in self.solve_file().resolved().items() if name in SOLVE_SECTIONS}
        return {"mipnet": data["mipnet"], "task": data["task"], **sections, **{k: v for k, v in data.items() if k not in SOLVE_SECTIONS}}
