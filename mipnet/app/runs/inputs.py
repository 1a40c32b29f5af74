"""What a run reads from a file: the network, images, input sets, limits and the solver.  Errors name the place in the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mipnet.app.files.base import NetworkFile, SpecFile
from mipnet.app.files.sections import BoxSpec, ImagesSpec, NetworkSpec, RegionSpec
from mipnet.app.files.solve_file import SolveFile
from mipnet.app.files.values import decimal_comma_hint
from mipnet.arrays import Array, Csr
from mipnet.backend import Backend, Limits, Options, Program, Rows, get_backend
from mipnet.backend.checks import check_limits
from mipnet.errors import BackendMissing, DataError, InputError, NetworkError, OptionError, UnsupportedError, shown, suggest_keywords
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.model.encoding import Encoding
from mipnet.model.losses import Loss, check_labels
from mipnet.network.gates import find_gates
from mipnet.network.graph import Network, size
from mipnet.network.image_check import warn_of_images
from mipnet.network.pass_cost import samples_at_once
from mipnet.network.sets import Box
from mipnet.pruning.importance.objective import Objective
from mipnet.pruning.importance.paper_bounds import PaperBounds
from mipnet.pruning.importance.program import Importance
from mipnet.pruning.importance.reduced_program import ReducedProgram
from mipnet.readers.data import Dataset, load, select
from mipnet.readers.files import WEIGHT_SUFFIXES, read, suffix_of
from mipnet.verification.robustness import clipped_ball

READ_IMAGES_AT_ONCE = 1024
"""Largest number of images between two looks at the clock."""


class SelectedImages(NamedTuple):
    """The ``images`` in the program, the ``split`` that they were selected from, and the ``holdout`` images, if there are any."""

    images: Dataset
    split: Dataset
    holdout: Dataset | None


@dataclass(frozen=True, eq=False)
class ImportanceInputs:
    """The importance question of a file, with the network and the images that it was made of."""

    network: Network
    question: Importance
    images: Dataset
    split: Dataset
    holdout: Dataset | None


def read_inputs(file: SolveFile, deadline: Deadline = NO_DEADLINE) -> ImportanceInputs:
    """Read the network and the images of a file, and return its importance question; raises `TimeLimitReached` if the time ends before."""
    network = read_network(file, deadline)
    with file.blame("gates"):
        find_gates(network, file.gates.layers)
    with file.blame("data"):
        selected = read_data(file, network, deadline)
    objective, formulation = file.objective, file.formulation
    question = Importance(
        network,
        selected.images.images,
        selected.images.labels,
        Objective(objective.weight, Loss(objective.loss, objective.margin), objective.normalize, objective.layers),
        gates=file.gates.layers,
        kind=file.gates.kind,
        formulation=formulation.names,
        bounds=PaperBounds(formulation.pattern, formulation.epsilon) if formulation.bounds == "paper" else formulation.bounds,
    )
    return ImportanceInputs(network, question, *selected)


def build_program(file: SolveFile, inputs: ImportanceInputs, deadline: Deadline = NO_DEADLINE) -> Encoding | ReducedProgram:
    """Return the importance program as a whole, unsolved; raises `TimeLimitReached` if it is not written at the deadline."""
    with file.blame("formulation", only=UnsupportedError):
        return inputs.question.pose(time_limit=deadline)


def limits_of(file: SolveFile) -> Limits:
    """Return the limits of the solver, except the time limit, which is that of the run."""
    given = file.solve
    return Limits(gap=given.mip_gap, gap_abs=given.mip_gap_abs, nodes=given.nodes, memory=given.memory)


def find_backend(file: SolveFile) -> Backend:
    """Return the backend of a solve file, after it took the options and the limits, so that mistakes are found early."""
    backend = checked_backend(file, file.solve.backend, file.solve.options)
    with file.blame("solve"):
        check_limits(backend, replace(limits_of(file), time=file.solve.seconds))
    return backend


def checked_backend(file: SpecFile, name: str, options: Options) -> Backend:
    """Return the backend ``solve.backend`` of a file, after it took ``solve.options`` on a program of one variable."""
    with file.blame("solve", "backend"):
        backend = get_backend(name)
    none = np.zeros(0)
    tiny = Program(np.ones(1), Rows(Csr((0, 1)), none, none), np.zeros(1), np.ones(1), np.ones(1, dtype=np.bool_))
    with file.blame("solve", "options"):
        try:
            backend.open(tiny, options).close()
        except OptionError as error:
            raise error.at(*[key for key in options if f"`{key}`" in str(error)][:1]) from None
    return backend


def installed_backend(file: SolveFile) -> Backend | None:
    """Return the backend of a file, or None if it is not installed."""
    try:
        return get_backend(file.solve.backend)
    except BackendMissing:
        return None


@suggest_keywords
def read_network(file: NetworkFile, deadline: Deadline = NO_DEADLINE, key: str = "network") -> Network:
    """Read the network under a key of a file; raises `NetworkError` naming the place in the file, and `TimeLimitReached`."""
    given: NetworkSpec = getattr(file, key)
    path = file.path(given.file)
    with file.blame(key):
        try:
            return _with_outputs(_read(path, given, deadline), given)
        except RuntimeError as error:  # torch raises it where memory does not suffice
            raise NetworkError(f"`{path}` cannot be run on an input of shape {given.input_shape} ({shown(str(error))})") from None


def _read(path: Path, given: NetworkSpec, deadline: Deadline) -> Network:
    """Read a file; an error about the file as a whole has the key `file`."""
    try:
        return read(path, given.layers, given.input_shape, deadline)
    except (NetworkError, UnsupportedError) as error:
        if not error.keys and not (given.layers and path.is_file() and suffix_of(path) in WEIGHT_SUFFIXES):
            error.at("file")
        raise


def _with_outputs(network: Network, given: NetworkSpec) -> Network:
    if given.outputs == "file":
        return network
    if network.softmax is None:
        raise NetworkError("the network has no softmax at its end, so its outputs are the logits; leave `outputs` out").at("outputs")
    return network.without_softmax()


def read_data(file: SolveFile, network: Network, deadline: Deadline = NO_DEADLINE) -> SelectedImages:
    """Read the images of a file: those for the program, and those for the evaluation of its result."""
    given, split = file.data, load_images(file, file.data, network, file.data.split)
    same, none = given.holdout == given.split, given.holdout == "none"
    holdout = None if none else split if same else load_images(file, given, network, given.holdout)
    deadline.check("read the files")
    warn_of_images(network, split.images, split.labels, deadline)
    scores = _own_class(network, split, deadline) if given.pick in ("confident", "uncertain") else None
    return SelectedImages(select(split, given.per_class, given.total, given.pick, given.seed, scores), split, holdout)


def load_images(file: SpecFile, given: ImagesSpec, network: Network, split: str) -> Dataset:
    """Load the images of a split, in the shape that the network takes, with its classes as labels."""
    root = None if given.root is None else file.path(given.root)
    if given.source == "idx" and (given.images is None or given.labels is None):
        raise DataError("source `idx` needs `images` and `labels`, the paths of two IDX files")
    names = (given.images or "images", given.labels or "labels") if given.images or given.labels else None
    dataset = load(
        given.source,
        root,
        split,
        shape=network.input_shape,
        file=given.file,
        names=names,
        scale=given.scale,
        channels=given.channels,
    )
    dataset = dataset if given.classes is None else replace(dataset, classes=given.classes)
    if len(network.output_shape) != 1:
        raise DataError(f"the network's output has shape {network.output_shape} for one sample; labels need one number for each class")
    check_labels(dataset.labels, len(dataset), network.output_shape[0])
    return dataset


def _own_class(network: Network, dataset: Dataset, deadline: Deadline) -> Array:
    """Return the network's probability of each image's own class."""
    at_once, logits = min(READ_IMAGES_AT_ONCE, samples_at_once(network)), []
    for first in range(0, len(dataset), at_once):
        deadline.check("select images by what the network says about them (`data.pick`)")
        logits.append(network.forward(dataset.images[first : first + at_once]))
    negative: Array = -Loss().values(np.concatenate(logits), dataset.labels)
    return np.exp(negative)


def read_image(file: NetworkFile, given: RegionSpec, network: Network, deadline: Deadline = NO_DEADLINE) -> tuple[Array, int]:
    """Read the image of a region; return it with shape ``(1, *input_shape)``, and its label."""
    with file.blame("region", "data"):
        images = load_images(file, given.data, network, given.data.split)
    warn_of_images(network, images.images, images.labels, deadline)
    with file.blame("region", "index"):
        if given.index >= len(images):
            raise DataError(f"got {given.index}; `{images.name}` has {len(images):,} images, counted from 0")
    return images.images[given.index : given.index + 1], int(images.labels[given.index])


def read_region(file: NetworkFile, given: RegionSpec, network: Network, deadline: Deadline = NO_DEADLINE) -> tuple[Box, int]:
    """Return the input set around the image of a region, and the label of the image."""
    image, label = read_image(file, given, network, deadline)
    with file.blame("region"):
        return clipped_ball(image, given.radius, given.norm, given.clip), label


def read_box(file: NetworkFile, given: BoxSpec, network: Network) -> Box:
    """Return the input set between ``lower`` and ``upper``."""
    inputs, ends = size(network.input_shape), []
    for key in ("lower", "upper"):
        with file.blame("box", key):
            end = np.asarray(getattr(given, key), dtype=np.float64)
            if end.shape not in ((), (inputs,)):
                hint = decimal_comma_hint(getattr(given, key), inputs)
                raise InputError(f"got {end.size} numbers; the network has {inputs} inputs{hint}")
            ends.append(np.broadcast_to(end, (inputs,)).reshape(1, *network.input_shape))
    with file.blame("box"):
        return Box(ends[0], ends[1])
