"""Verification of a property: is there an input of the set at which it holds?  Cheap proofs come first, a solver last.

A property holds where one of its clauses holds (`mipnet.network.properties`).  The stages run for every clause of every case until a stage
refutes the clause, by a bound above 0 on its excess, or finds an input at which it holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from mipnet.backend import Backend, get_backend
from mipnet.bounds.propagation import propagate
from mipnet.errors import TimeLimitReached, suggest_keywords
from mipnet.limits.deadline import Deadline, TimeLimit
from mipnet.limits.result_warnings import carries_warnings
from mipnet.network.graph import Network, size
from mipnet.network.named_inputs import check_input_order
from mipnet.network.properties import Property
from mipnet.solving.mip_settings import MOVED_TO_MIP_SETTINGS, MipSettings
from mipnet.verification.clause_network import Excess
from mipnet.verification.clause_program import ClauseProgram
from mipnet.verification.oracle import Oracle
from mipnet.verification.softmax_rows import LogitClause, logit_clauses
from mipnet.verification.stages import CaseTrial, StageSettings
from mipnet.verification.verdict import STAGE_NAMES, Verdict, VerdictStatus

LOGIT_BOUND_NOTE = "thresholds of probabilities were rewritten for the logits, in whose units the bound is"


@suggest_keywords(moved=MOVED_TO_MIP_SETTINGS)
@carries_warnings
def verify(
    network: Network,
    question: Property,
    *,
    time_limit: TimeLimit = 60.0,
    backend: str | Backend | MipSettings = "highs",
    oracle: Oracle | None = None,
    cross_check: str | Backend | None = None,
    seed: int = 0,
    on_stage: Callable[[str, int], None] = lambda stage, left: None,
) -> Verdict:
    """Decide whether some input satisfies the property: ``sat`` (with such an input), ``unsat`` (there is none) or ``unknown``.

    Parameters
    ----------
    time_limit
        Seconds of the whole call, None for no limit; then a clause that no stage has decided makes the verdict ``unknown``.
    backend
        The solver of the last stage, or a `MipSettings` with its options and the formulation as well.
    oracle
        The `Oracle` that has to confirm a counterexample; the forward pass in float64 if left out.
    cross_check
        A second backend.  The verdict is ``unsat`` only if it refutes every clause as well, starting from interval bounds.
    seed
        The seed of the gradient search.
    on_stage
        Called when a stage begins, with its name and the number of open clauses of the case.

    ``unsat`` rests on bounds that are rounded outwards, and on a solver's dual bound minus its tolerances
    (`mipnet.solving.element_bounds.tolerance_margin`).  Before that verdict, bounds and programs are checked by forward passes
    (`mipnet.verification.self_check`), as many as there is time for; a contradiction raises `SolverFailure`.

    A property of a network that ends in a softmax is about the probabilities, or log-probabilities: its rows are rewritten for the logits
    (`mipnet.verification.softmax_rows`), in whose units the bounds are; the oracle confirms a counterexample with the softmax.  Raises
    `UnsupportedError` for a row that cannot be rewritten.
    """
    began, deadline = time.monotonic(), Deadline.after(time_limit)
    rewritten = check_property(network, question)
    oracle = oracle or Oracle.of(network)
    settings = StageSettings(MipSettings.of(backend), oracle, seed, on_stage)
    second = None if cross_check is None else get_backend(cross_check)
    verdicts: list[Verdict] = []
    for k, case in enumerate(question.cases):
        trial = CaseTrial(network, case, k, settings, deadline.share(1 / (len(question.cases) - k)))
        verdicts.append(trial.verdict())
        if verdicts[-1].status == "sat" or verdicts[-1].interrupted:
            break
    verdict = _together(verdicts, len(question.cases), time.monotonic() - began)
    if second is not None and verdict.status == "unsat":
        other = replace(settings, mip=replace(settings.mip, backend=second, options=None))
        verdict = _second_opinion(network, question, verdict, other, deadline)
    return replace(verdict, note="; ".join(filter(None, [verdict.note, LOGIT_BOUND_NOTE if rewritten else ""])))


def check_property(network: Network, question: Property) -> bool:
    """Raise `InputError` unless a property fits a network; `UnsupportedError` for a row that `logit_clauses` cannot rewrite.

    Returns whether any row is rewritten.
    """
    question.check(size(network.input_shape), size(network.output_shape))
    for case in question.cases:
        check_input_order(case.region.input_names, network.input_names, "the region of a case")
    found = [each for case in question.cases for each in logit_clauses(network, case.clauses)]
    return any(isinstance(each, LogitClause) for each in found)


def _together(verdicts: list[Verdict], cases: int, seconds: float) -> Verdict:
    """Combine the verdicts of the cases: ``sat`` if one is ``sat``, ``unsat`` if all are ``unsat``."""
    last = verdicts[-1]
    statuses = {verdict.status for verdict in verdicts}
    status: VerdictStatus = "sat" if "sat" in statuses else "unsat" if statuses == {"unsat"} and len(verdicts) == cases else "unknown"
    findings = tuple(finding for verdict in verdicts for finding in verdict.findings)
    stages = [verdict.stage for verdict in verdicts if verdict.stage is not None]
    stage = last.stage if status == "sat" else max(stages, key=STAGE_NAMES.index, default=None) if status == "unsat" else None
    parts, nodes = sum(verdict.parts for verdict in verdicts), sum(verdict.nodes for verdict in verdicts)
    return replace(last, status=status, stage=stage, findings=findings, seconds=seconds, parts=parts, nodes=nodes)


def _second_opinion(network: Network, question: Property, verdict: Verdict, settings: StageSettings, deadline: Deadline) -> Verdict:
    """Return the verdict if the second backend also refutes every clause from interval bounds; ``unknown`` or ``sat`` if it does not."""
    solver = settings.mip.solver.name
    for k, case in enumerate(question.cases):
        trial = CaseTrial(network, case, k, settings, deadline)
        left = _first_not_refuted(trial) if case.clauses else None
        if trial.found is not None:
            note = f"{solver} found a counterexample where every clause had been refuted: please report this"
            return replace(trial.verdict_so_far(), stage="mip", findings=verdict.findings, seconds=verdict.seconds, note=note)
        if left is not None:
            clause = trial.clauses[left]
            why = "from linear functions below its log-sum" if isinstance(clause, LogitClause) and clause.log_sums else "in time"
            note = f"{solver} did not refute clause {left} of case {k} {why}; without a cross-check this is unsat"
            return replace(verdict, status="unknown", note=note)
    return replace(verdict, note=f"{solver} agrees")


def _first_not_refuted(trial: CaseTrial) -> int | None:
    """Return the first clause of a case that the solver of a trial does not refute from interval bounds, or None if it refutes all."""
    clause, count = 0, len(trial.case.clauses)
    try:
        trial.excess = Excess.of(trial.network, trial.clauses)
        trial.bounds = propagate(trial.excess.network, trial.region, method="interval", time_limit=trial.deadline)
        with ClauseProgram(trial.excess, trial.bounds, trial.settings.mip, trial.confirm, trial.deadline) as program:
            for clause in range(count):
                if not program.decide(clause, trial.deadline.share(1 / (count - clause))).bound > 0:
                    return clause
    except TimeLimitReached:
        return clause
    return None
