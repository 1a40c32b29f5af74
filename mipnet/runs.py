"""What one YAML file makes happen, apart from the screen: network, images, program, solve, scores, masks, accuracies, run folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
import yaml

from mipnet.adapter import check_limits
from mipnet.backend import Backend, Event, Limits, OnEvent, get_backend
from mipnet.build import Encoding
from mipnet.engine import Result, solve
from mipnet.errors import DataError, NetworkError, UnsupportedError
from mipnet.gates import find_gates
from mipnet.ir import Array, Network
from mipnet.losses import Loss, check_labels
from mipnet.program import Csr, Program, Rows
from mipnet.pruning.count import remaining_parameters
from mipnet.pruning.masks import accuracy, critical_masks, make_masks, random_masks
from mipnet.readers.data import Dataset, load, select
from mipnet.readers.files import read
from mipnet.records import Accuracy, LayerCount, Run, to_json
from mipnet.runfolder import check_folder, new_folder
from mipnet.spec import Spec
from mipnet.specfile import shown
from mipnet.tasks.importance import Importance
from mipnet.tasks.reduced import Reduced

DRAWS = 5
"""Over how many draws the accuracy with random masks is averaged."""


@dataclass(frozen=True, eq=False)
class Posed:
    """The importance program of a spec, before it is solved; ``images`` are those in it."""

    network: Network
    task: Importance
    problem: Encoding | Reduced
    images: Dataset
    holdout: Dataset | None
    seconds: float


def run_importance(spec: Spec, on_event: OnEvent | None = None) -> Run:
    """Pose, solve and judge the importance program of a spec; whether ``output`` can be written is checked first.

    Ctrl-C during the solve ends it with status `interrupted`, and the best point so far is judged.
    """
    if spec.output is not None:
        with spec.blame("output"):
            check_folder(Path(spec.output).expanduser())
    backend = _backend(spec)
    posed = pose(spec)
    log: list[str] = []
    result = solve(
        posed.problem,
        backend,
        limits=_limits(spec),
        options=spec.solve.options,
        start=spec.solve.start,
        on_event=_listener(log, on_event),
    )
    return _judge(spec, posed, result, tuple(log))


def _listener(log: list[str], on_event: OnEvent | None) -> Callable[[Event], None]:
    def hear(event: Event) -> None:
        if event.kind == "log":
            log.append(event.text)
        if on_event is not None:
            on_event(event)

    return hear


def _limits(spec: Spec) -> Limits:
    given = spec.solve
    return Limits(time=given.seconds, gap=given.mip_gap, nodes=given.nodes, memory=given.memory)


def _backend(spec: Spec) -> Backend:
    """The backend, after it took limits, and options on a program of one variable: mistakes should not wait for the real one."""
    with spec.blame("solve", "backend"):
        backend = get_backend(spec.solve.backend)
    with spec.blame("solve"):
        check_limits(backend, _limits(spec))
    none = np.zeros(0)
    tiny = Program(np.ones(1), Rows(Csr((0, 1)), none, none), np.zeros(1), np.ones(1), np.ones(1, dtype=np.bool_))
    with spec.blame("solve", "options"):
        backend.open(tiny, spec.solve.options).close()
    return backend


def pose(spec: Spec) -> Posed:
    """The program of a spec, unsolved."""
    network = read_network(spec)
    with spec.blame("gates"):
        find_gates(network, spec.gates.layers)
    with spec.blame("data"):
        images, holdout = _data(spec, network)
    given = spec.objective
    task = Importance(
        network,
        images.images,
        images.labels,
        loss=Loss(given.loss, given.margin),
        weight=given.weight,
        normalize=given.normalize,
        layers=given.layers,
        gates=spec.gates.layers,
        kind=spec.gates.kind,
        formulation=spec.formulation.names,
        bounds=spec.formulation.bounds,
        pattern=spec.formulation.pattern,
        epsilon=spec.formulation.epsilon,
    )
    began = time.perf_counter()
    with spec.blame("formulation", only=UnsupportedError):
        problem = task.pose()
    return Posed(network, task, problem, images, holdout, time.perf_counter() - began)


def read_network(spec: Spec) -> Network:
    """The network of a spec; raises `NetworkError` naming the place in the file."""
    given, path = spec.network, spec.path(spec.network.file)
    with spec.blame("network"):
        if path.suffix.lower() == ".pt2" and (given.layers or given.input_shape):
            raise NetworkError(f"`{path}` holds a whole network; leave `layers` and `input_shape` out")
        try:
            return read(path, given.layers, given.input_shape)
        except RuntimeError as error:  # torch's word for memory that is not there
            raise NetworkError(f"`{path}` cannot be run on an input of shape {given.input_shape} ({shown(str(error))})") from None


def _data(spec: Spec, network: Network) -> tuple[Dataset, Dataset | None]:
    """The images for the program, and those for judging its result."""
    images = _load(spec, network, spec.data.split)
    given = spec.data
    holdout = None if given.holdout == "none" else images if given.holdout == given.split else _load(spec, network, given.holdout)
    scores = _own_class(network, images) if given.pick in ("confident", "uncertain") else None
    return select(images, given.per_class, given.total, given.pick, given.seed, scores), holdout


def _load(spec: Spec, network: Network, split: str) -> Dataset:
    given = spec.data
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
        classes=given.classes,
    )
    if len(network.output_shape) != 1:
        raise DataError(f"the network's output has shape {network.output_shape} for one sample; labels need one number for each class")
    check_labels(dataset.labels, len(dataset), network.output_shape[0])
    return dataset


def _own_class(network: Network, dataset: Dataset) -> Array:
    """The network's probability of each image's own class."""
    negative: Array = -Loss().values(network.forward(dataset.images), dataset.labels)
    return np.exp(negative)


def _judge(spec: Spec, posed: Posed, result: Result, log: tuple[str, ...]) -> Run:
    """Scores, masks, what is left of each layer, and the accuracies on the held-out images."""
    network, gates = posed.network, posed.problem.gates
    found = posed.task.read(posed.problem, result)
    masks = None if found.scores is None else make_masks(network, gates, found.scores, spec.prune.value)
    return Run(
        spec=spec,
        result=result,
        build_seconds=posed.seconds,
        samples=len(posed.images),
        held=0 if posed.holdout is None else len(posed.holdout),
        scores=found.scores,
        masks=masks,
        layers=count_layers(posed.problem, masks),
        accuracy=_accuracies(posed, found.scores, masks, spec.data.seed),
        notes=_notes(spec, network, result, masks),
        log=log,
    )


def count_layers(problem: Encoding | Reduced, masks: xr.Dataset | None) -> tuple[LayerCount, ...]:
    """For every layer with parameters: units kept, and parameters before and after; a module used twice counts once."""
    gates = {node: gate for gate in problem.gates for node in gate.nodes}
    after = {} if masks is None else remaining_parameters(problem.network, problem.gates, masks)
    counts: dict[str, LayerCount] = {}
    for node in problem.network.nodes:
        before, gate = sum(w.numel() for w in node.layer.weights().values()), gates.get(node.name)
        if before and node.origin not in counts:
            units = gate.units if gate else None
            kept = units if gate is None or masks is None else int(masks[gate.name].sum())
            counts[node.origin] = LayerCount(gate.name if gate else node.name, kept, units, before, after.get(node.name, before))
    return tuple(counts.values())


def _accuracies(posed: Posed, scores: xr.Dataset | None, masks: xr.Dataset | None, seed: int) -> Accuracy:
    network, gates, holdout = posed.network, posed.problem.gates, posed.holdout
    if holdout is None:
        return Accuracy()

    def right(chosen: xr.Dataset | None) -> float:
        return accuracy(network, holdout.images, holdout.labels, gates, chosen)

    reference = right(None)
    if scores is None or masks is None:
        return Accuracy(reference)
    drawn = [right(random_masks(masks, seed + draw)) for draw in range(DRAWS)]
    return Accuracy(reference, right(masks), sum(drawn) / DRAWS, right(critical_masks(masks, scores)))


def _notes(spec: Spec, network: Network, result: Result, masks: xr.Dataset | None) -> tuple[str, ...]:
    notes = list(network.notes)
    if result.x is None:
        notes.append("no point was found, so there are no scores: give it more time, or fewer images")
    elif not result.verified:
        notes.append(f"the point does not survive its replay (it differs by {result.max_error:.1g}): do not use these scores")
    elif masks is not None and all(bool(kept.all()) for kept in masks.values()):
        notes.append("no unit scores below the threshold, so nothing goes: a smaller `objective.weight` prunes more")
    if spec.data.holdout == spec.data.split:
        notes.append(f"accuracy is that on the `{spec.data.split}` split, which holds the images of the program too")
    return tuple(notes)


def save(run: Run) -> Path | None:
    """Write the run folder, whole or not at all, and return where it is; None if the spec names none."""
    if run.spec.output is None:
        return None
    folder = Path(run.spec.output).expanduser()
    with run.spec.blame("output"), new_folder(folder) as fresh:
        (fresh / "model.yaml").write_text(yaml.safe_dump(run.spec.resolved(), sort_keys=False, allow_unicode=True))
        (fresh / "solver.log").write_text("".join(f"{line}\n" for line in run.log))
        if run.scores is not None and run.masks is not None:
            run.scores.to_netcdf(fresh / "scores.nc", engine="netcdf4")
            run.masks.to_netcdf(fresh / "masks.nc", engine="netcdf4")
        (fresh / "result.json").write_text(json.dumps(to_json(run), indent=2, allow_nan=False) + "\n")
    return folder
