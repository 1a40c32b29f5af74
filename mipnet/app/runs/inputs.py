"""From a spec to its question: network, images, gates, limits and a solver that takes them; every error names its place in the file."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mipnet.app.files.solve_file import ImagesSpec, NetworkFile, NetworkSpec, Spec, SpecFile
from mipnet.app.files.source import shown
from mipnet.arrays import Array, Csr
from mipnet.backend import Backend, Limits, Options, Program, Rows, get_backend
from mipnet.backend.helpers import check_limits
from mipnet.errors import BackendMissing, DataError, NetworkError, UnsupportedError
from mipnet.model.encoding import Encoding
from mipnet.model.losses import Loss, check_labels
from mipnet.network.gates import find_gates
from mipnet.network.graph import Network
from mipnet.pruning.importance.objective import Objective
from mipnet.pruning.importance.paper_bounds import PaperBounds
from mipnet.pruning.importance.program import Importance
from mipnet.pruning.importance.reduced_program import ReducedProgram
from mipnet.readers.data import Dataset, load, select
from mipnet.readers.files import NETWORK_SUFFIXES, read, suffix_of


@dataclass(frozen=True, eq=False)
class Asked:
    """The importance question of a spec.

    ``images`` are those in the program, chosen from ``split``; ``holdout`` are those that judge what came of it.
    """

    network: Network
    task: Importance
    images: Dataset
    split: Dataset
    holdout: Dataset | None


def ask(spec: Spec) -> Asked:
    """The question of a spec, with its network and its images read."""
    network = read_network(spec)
    with spec.blame("gates"):
        find_gates(network, spec.gates.layers)
    with spec.blame("data"):
        images, split, holdout = read_data(spec, network)
    given, form = spec.objective, spec.formulation
    task = Importance(
        network,
        images.images,
        images.labels,
        Objective(given.weight, Loss(given.loss, given.margin), given.normalize, given.layers),
        gates=spec.gates.layers,
        kind=spec.gates.kind,
        formulation=spec.formulation.names,
        bounds=PaperBounds(form.pattern, form.epsilon) if form.bounds == "paper" else form.bounds,
    )
    return Asked(network, task, images, split, holdout)


def pose(spec: Spec, asked: Asked) -> Encoding | ReducedProgram:
    """The program of the question as a whole, unsolved."""
    with spec.blame("formulation", only=UnsupportedError):
        return asked.task.pose()


def limits_of(spec: Spec) -> Limits:
    """When the solver stops."""
    given = spec.solve
    return Limits(time=given.seconds, gap=given.mip_gap, nodes=given.nodes, memory=given.memory)


def find_backend(spec: Spec) -> Backend:
    """The backend, after it took limits, and options on a program of one variable: mistakes should not wait for the real one."""
    with spec.blame("solve", "backend"):
        backend = get_backend(spec.solve.backend)
    with spec.blame("solve"):
        check_limits(backend, limits_of(spec))
    with spec.blame("solve", "options"):
        try_options(backend, spec.solve.options)
    return backend


def try_options(backend: Backend, options: Options) -> None:
    """Raise `OptionError` unless the backend takes these options, on a program of one variable."""
    none = np.zeros(0)
    tiny = Program(np.ones(1), Rows(Csr((0, 1)), none, none), np.zeros(1), np.ones(1), np.ones(1, dtype=np.bool_))
    backend.open(tiny, options).close()


def backend_if_there(spec: Spec) -> Backend | None:
    """The backend of a spec, or None where it is not installed."""
    try:
        return get_backend(spec.solve.backend)
    except BackendMissing:
        return None


def read_network(spec: NetworkFile, key: str = "network") -> Network:
    """The network of a spec, under its key; raises `NetworkError` naming the place in the file."""
    given: NetworkSpec = getattr(spec, key)
    path = spec.path(given.file)
    with spec.blame(key):
        if suffix_of(path) in NETWORK_SUFFIXES and (given.layers or given.input_shape):
            raise NetworkError(f"`{path}` holds a whole network; leave `layers` and `input_shape` out")
        try:
            return read(path, given.layers, given.input_shape)
        except RuntimeError as error:  # torch's word for memory that is not there
            raise NetworkError(f"`{path}` cannot be run on an input of shape {given.input_shape} ({shown(str(error))})") from None


def read_data(spec: Spec, network: Network) -> tuple[Dataset, Dataset, Dataset | None]:
    """The images for the program, those that they are chosen from, and those for judging its result."""
    given, split = spec.data, load_images(spec, spec.data, network, spec.data.split)
    same, none = given.holdout == given.split, given.holdout == "none"
    holdout = None if none else split if same else load_images(spec, given, network, given.holdout)
    scores = _own_class(network, split) if given.pick in ("confident", "uncertain") else None
    return select(split, given.per_class, given.total, given.pick, given.seed, scores), split, holdout


def load_images(spec: SpecFile, given: ImagesSpec, network: Network, split: str) -> Dataset:
    """The images of a split, as the network takes them, with labels that are its classes."""
    root = spec.path(given.root or ".") if given.root or given.source in ("npz", "idx") else None
    dataset = load(
        given.source,
        root,
        split,
        shape=network.input_shape,
        file=given.file,
        images=given.images,
        labels=given.labels,
        scale=given.scale,
    )
    dataset = dataset if given.classes is None else replace(dataset, classes=given.classes)
    if len(network.output_shape) != 1:
        raise DataError(f"the network's output has shape {network.output_shape} for one sample; labels need one number for each class")
    check_labels(dataset.labels, len(dataset), network.output_shape[0])
    return dataset


def _own_class(network: Network, dataset: Dataset) -> Array:
    """The network's probability of each image's own class."""
    negative: Array = -Loss().values(network.forward(dataset.images), dataset.labels)
    return np.exp(negative)
