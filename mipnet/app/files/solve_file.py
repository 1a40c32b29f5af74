"""The YAML file of `mipnet solve`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from mipnet.app.files.base import NetworkFile, load_as
from mipnet.app.files.formulation_section import FormulationSpec
from mipnet.app.files.sections import DataSpec, GatesSpec, ObjectiveSpec, PruneSpec, SolveSpec
from mipnet.app.files.values import choice
from mipnet.app.files.yaml_source import Override
from mipnet.errors import suggest_keywords


class SolveFile(NetworkFile):
    """A YAML file for `mipnet solve`: the network, the images, the importance program, the solver, and how to prune by the scores."""

    task: Annotated[Literal["importance"], choice("importance")]
    data: DataSpec
    gates: GatesSpec = GatesSpec()
    formulation: FormulationSpec = FormulationSpec()
    objective: ObjectiveSpec = ObjectiveSpec()
    solve: SolveSpec = SolveSpec()
    prune: PruneSpec = PruneSpec()


@suggest_keywords
def load_spec(path: str | Path, overrides: Sequence[Override | str] = ()) -> SolveFile:
    """Read a YAML file for `mipnet solve`, with ``key.sub=value`` overrides; raises `InputError` in one line."""
    return load_as(SolveFile, path, overrides)
