"""The run of `mipnet counterfactual`."""

from __future__ import annotations

from typing import Any

from mipnet.app.files.counterfactual_file import CounterfactualFile
from mipnet.app.runs.certify import read_set, softmax_record, solver_settings
from mipnet.app.runs.inputs import read_network
from mipnet.app.runs.listener import RunListener
from mipnet.app.runs.result import TaskResult, as_list, task_record
from mipnet.limits.deadline import Deadline
from mipnet.limits.result_warnings import carries_warnings
from mipnet.network.graph import Network
from mipnet.verification.counterfactuals.counterfactual import Counterfactual, counterfactual
from mipnet.verification.counterfactuals.settings import CounterfactualSettings


@carries_warnings
def run_counterfactual(file: CounterfactualFile, listener: RunListener | None = None) -> TaskResult:
    """Find the input nearest to that of a file with its target answer, or several of them, and prove how near they are."""
    given, deadline = file.solve, Deadline.after(file.solve.time_limit)
    solver, network = solver_settings(file), _named(file, read_network(file, deadline))
    settings = CounterfactualSettings(
        solver.backend,
        solver.options,
        within=None if file.within is None else read_set(file, file.within, network, deadline),
        weights=file.distance.weights,
        increasing=file.features.increasing,
        decreasing=file.features.decreasing,
        count=file.answers.count,
        apart=file.answers.apart,
        margin=file.answers.margin,
        gap=given.tolerance,
        seed=given.seed,
        time_limit=deadline,
    )
    with file.blame("input"):
        found = counterfactual(
            network,
            file.input,
            list(file.target) if isinstance(file.target, tuple) else file.target,
            immutable=file.features.immutable,
            integer=file.features.integer,
            one_hot=file.features.one_hot,
            norm=file.distance.norm,
            backend=settings,
        )
    answers = (found, *found.further)
    record = {**softmax_record(network), "x": _by_feature(found.x), "norm": found.norm, "answers": [_record(each) for each in answers]}
    record |= {"seconds": found.seconds, "nodes": found.nodes}
    success = found.status in ("optimal", "infeasible") and all(each.status in ("optimal", "infeasible") for each in answers)
    lines = [_line(number, each) for number, each in enumerate(answers, start=1)]
    return TaskResult(file, task_record(file, record), lines, success, found.interrupted, found.warnings)


def _named(file: CounterfactualFile, network: Network) -> Network:
    names = file.features.names
    if names is None:
        return network
    with file.blame("features", "names"):
        return network.with_input_names(names)


def _by_feature(x: Any) -> Any:
    return x.to_series().to_dict() if x.ndim == 1 else as_list(x.values)


def _record(answer: Counterfactual) -> dict[str, Any]:
    point = None if answer.point is None else {"point": _by_feature(answer.point), "output": as_list(answer.output.values)}  # type: ignore[union-attr]
    return {"status": answer.status, "distance": answer.distance, "bound": answer.bound, **(point or {"point": None, "output": None})}


def _line(number: int, answer: Counterfactual) -> str:
    if answer.point is None:
        proven = "there is none, which is proven" if answer.status == "infeasible" else f"none found; none within {answer.bound:.6g}"
        return f"answer {number}: {proven}"
    change = answer.change
    shown = [f"{name} {value:+.6g}" for name, value in change.to_series().items()] if change.ndim == 1 else [f"{change.size} inputs"]
    text = ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "")
    found = f"{answer.bound:.6g} <= distance in {answer.norm} <= {answer.distance:.6g} ({answer.status})"
    return f"answer {number}: {found}: {text or 'no change'}"
