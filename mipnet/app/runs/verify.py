"""A file of ``task: verify``: a network and a property, of a .vnnlib file or as robustness around an image; its run and its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BeforeValidator, Field

from mipnet.app.files.solve_file import OTHERS, ImagesSpec, NetworkFile, load_as
from mipnet.app.files.source import Override
from mipnet.app.files.types import Clip, Option, Part, Positive, Text, Tuple, Whole, choice, expects, says
from mipnet.app.runs.folder import check_folder, new_folder
from mipnet.app.runs.inputs import load_images, read_network, try_options
from mipnet.app.runs.vnncomp import Question, check_last, result_text, result_word, to_record
from mipnet.arrays import Array
from mipnet.backend import Backend, get_backend
from mipnet.errors import DataError, InputError
from mipnet.formulations.distance import Norm
from mipnet.network.graph import Network, size
from mipnet.network.properties import Property
from mipnet.network.sets import Box
from mipnet.readers.vnnlib import read_vnnlib
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.oracle import Oracle
from mipnet.verification.pipeline import verify
from mipnet.verification.robustness import Classes, class_change_property, clipped_ball
from mipnet.verification.verdict import Verdict

FILES = ("verify.yaml", "result.json", "result.txt")
"""What the folder of a verification holds: the spec, all that was found, and the answer as VNN-COMP wants it."""


def _task(value: Any) -> Any:
    if value == "importance" or (value in OTHERS and value != "verify"):
        raise says("such a file is for `mipnet {command}`", command="solve" if value == "importance" else value)
    return value


class RegionSpec(Part):
    """All inputs within ``radius`` of image ``index`` of some data, in the norm, clipped to the valid range ``clip`` if there is one."""

    data: ImagesSpec
    index: Whole = 0
    norm: Annotated[Norm, choice(*get_args(Norm))] = "linf"
    radius: Positive
    clip: Clip | None = None


class RobustSpec(Part):
    """The class that should win, that of the image if left out; with ``targets``, whether one of these may win instead of any other."""

    label: Whole | None = None
    targets: (
        Annotated[
            tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), Tuple, expects("a list of classes, whole numbers of at least 0")
        ]
        | None
    ) = None


class VerifySolveSpec(Part):
    """The solver for what cheaper stages leave, seconds for everything, and a second solver that has to refute as well."""

    backend: Text = "highs"
    time_limit: Positive = 60.0
    cross_check: Text | None = None
    seed: Whole = 0
    options: Annotated[dict[str, Option], expects("a mapping with the solver's own options, by its own names")] = Field(
        default_factory=dict
    )


class Verification(NetworkFile):
    """A YAML file for `mipnet verify`: a network, and either ``property`` or ``region`` with ``robust``."""

    task: Annotated[Literal["verify"], choice("verify"), BeforeValidator(_task)]
    asked: Text | None = Field(None, alias="property")
    region: RegionSpec | None = None
    robust: RobustSpec | None = None
    solve: VerifySolveSpec = VerifySolveSpec()
    output: Text | None = None

    def resolved(self) -> dict[str, Any]:
        """The file as plain data with every default filled in and every path absolute: it can be run again from anywhere."""
        data = self.model_dump(mode="json", exclude_none=True, by_alias=True)
        data["network"]["file"] = str(self.path(self.network.file).absolute())
        if self.asked is not None:
            data["property"] = str(self.path(self.asked).absolute())
        if self.region is not None and (self.region.data.root is not None or self.region.data.source in ("npz", "idx")):
            data["region"]["data"]["root"] = str(self.path(self.region.data.root or ".").absolute())
        if self.output is not None:
            data["output"] = str(Path(self.output).expanduser().absolute())
        return data


@dataclass(frozen=True, eq=False)
class Verified:
    """What came of a file: the verdict, and the word for it."""

    file: Verification
    verdict: Verdict
    word: str

    @property
    def record(self) -> dict[str, Any]:
        """All that was found as plain JSON data."""
        given = self.file.resolved()
        about: dict[str, Any] = {key: given[key] for key in ("property", "region", "robust") if key in given}
        return {"network": given["network"]["file"], **about, **to_record(self.verdict, self.word), "output_folder": given.get("output")}


def load_verification(path: str | Path, overrides: Sequence[Override | str] = ()) -> Verification:
    """The question of a YAML file; raises `InputError` in one line, naming file, line and key."""
    file = load_as(Verification, path, overrides)
    for name in ("region", "robust"):
        with file.blame(name):
            if file.asked is not None and getattr(file, name) is not None:
                raise InputError("`property` says what is asked of which inputs; leave this out, or leave `property` out")
    with file.blame("property" if file.robust is None else "region"):
        if file.asked is None and file.region is None:
            raise InputError("this key is missing; expected the path of a .vnnlib file, or `region` (and `robust`)")
    return file


def run_verification(file: Verification, on_stage: Callable[[str, int], None] = lambda stage, left: None) -> Verified:
    """Decide the question of a file; whatever can be wrong with the file is found before that."""
    began = time.monotonic()
    if file.output is not None:
        with file.blame("output"):
            check_folder(Path(file.output).expanduser(), FILES)
    backend, second = find_backends(file)
    asked, given = ask(file), file.solve
    verdict = verify(
        asked.network,
        asked.question,
        time_limit=max(0.1, given.time_limit - (time.monotonic() - began)),
        backend=MipSettings(backend, given.options or None),
        oracle=asked.oracle,
        cross_check=second,
        seed=given.seed,
        on_stage=on_stage,
    )
    verdict = replace(verdict, seconds=time.monotonic() - began)
    return Verified(file, verdict, result_word(verdict, given.time_limit))


def find_backends(file: Verification) -> tuple[Backend, Backend | None]:
    """The solver, after it took its options, and the one that checks it."""
    with file.blame("solve", "backend"):
        backend = get_backend(file.solve.backend)
    with file.blame("solve", "options"):
        try_options(backend, file.solve.options)
    with file.blame("solve", "cross_check"):
        return backend, None if file.solve.cross_check is None else get_backend(file.solve.cross_check)


def ask(file: Verification) -> Question:
    """The network, the property and the oracle of a file."""
    network = read_network(file)
    if file.asked is not None:
        with file.blame("property"):
            question = read_vnnlib(file.path(file.asked))
            question.check(size(network.input_shape), size(network.output_shape))
            check_last(network, question)
    else:
        assert file.region is not None
        question = robust_property(file, file.region, network)
    return Question(network, question, Oracle.of_file(file.path(file.network.file), network))


def robust_property(file: Verification, given: RegionSpec, network: Network) -> Property:
    """Satisfied by an input of the ball that changes the answer, see `mipnet.verification.robustness.class_change_property`."""
    ball, own = image_region(file, given, network)
    asked = file.robust or RobustSpec()
    label = own if asked.label is None else asked.label
    with file.blame("robust"):
        return class_change_property(ball, size(network.output_shape), Classes(label, asked.targets))


def image_region(file: NetworkFile, given: RegionSpec, network: Network) -> tuple[Box, int]:
    """The set around an image of a file, and the image's label."""
    image, label = region_image(file, given, network)
    with file.blame("region"):
        return clipped_ball(image, given.radius, given.norm, given.clip), label


def region_image(file: NetworkFile, given: RegionSpec, network: Network) -> tuple[Array, int]:
    """The image of a file, of shape ``(1, *input_shape)``, and its label."""
    with file.blame("region", "data"):
        images = load_images(file, given.data, network, given.data.split)
    with file.blame("region", "index"):
        if given.index >= len(images):
            raise DataError(f"got {given.index}; `{images.name}` has {len(images):,} images, counted from 0")
    return images.images[given.index : given.index + 1], int(images.labels[given.index])


def save(done: Verified) -> Path | None:
    """Write the folder, whole or not at all, and return where it is; None if the file names none."""
    if done.file.output is None:
        return None
    folder = Path(done.file.output).expanduser()
    with done.file.blame("output"), new_folder(folder, FILES) as fresh:
        (fresh / "verify.yaml").write_text(yaml.safe_dump(done.file.resolved(), sort_keys=False, allow_unicode=True))
        (fresh / "result.json").write_text(json.dumps(done.record, indent=2, allow_nan=False) + "\n")
        (fresh / "result.txt").write_text(result_text(done.word, done.verdict))
    return folder
