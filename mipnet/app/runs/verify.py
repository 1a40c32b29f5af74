"""The run of a YAML file for `mipnet verify`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mipnet.app.files.sections import RegionSpec, RobustSpec
from mipnet.app.files.verify_file import VerifyFile
from mipnet.app.runs.folder import check_output
from mipnet.app.runs.inputs import checked_backend, read_network, read_region
from mipnet.app.runs.listener import RunListener
from mipnet.app.runs.result import exit_status
from mipnet.app.runs.vnncomp import VerificationQuestion, result_text, result_word, verdict_record
from mipnet.backend import Backend, get_backend
from mipnet.errors import TimeLimitReached
from mipnet.limits.deadline import NO_DEADLINE, Deadline
from mipnet.limits.result_warnings import collected_warnings
from mipnet.network.graph import Network, size
from mipnet.network.properties import Property
from mipnet.readers.vnnlib import read_vnnlib
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.oracle import Oracle
from mipnet.verification.robustness import Classes, class_change_property
from mipnet.verification.verdict import Verdict, unread
from mipnet.verification.verify import check_property, verify


@dataclass(frozen=True, eq=False)
class VerifyRun:
    """The result of a YAML file for `mipnet verify`: the verdict, and the word for it in a result file."""

    file: VerifyFile
    verdict: Verdict
    word: str

    @property
    def status(self) -> int:
        """The exit status: 0 for every verdict, 130 after Ctrl-C."""
        return exit_status(True, self.verdict.interrupted)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the verdict may mislead, or what was left out."""
        return self.verdict.warnings

    @property
    def lines(self) -> tuple[str, ...]:
        """The word; `mipnet.app.screen.verify_tables` has the table."""
        return (self.word,)

    @property
    def record(self) -> dict[str, Any]:
        """All results as plain JSON data."""
        data = self.file.resolved()
        about: dict[str, Any] = {key: data[key] for key in ("property", "region", "robust") if key in data}
        return {"network": data["network"]["file"], **about, **verdict_record(self.verdict, self.word), "output_folder": data.get("output")}

    def write_files(self, folder: Path) -> None:
        """Write ``result.txt`` in the format of VNN-COMP."""
        (folder / "result.txt").write_text(result_text(self.word, self.verdict))


def run_verification(file: VerifyFile, listener: RunListener | None = None) -> VerifyRun:
    """Verify the property of a file; mistakes in the file are found before the verification."""
    began, given, listener = time.monotonic(), file.solve, listener or RunListener()
    deadline = Deadline.after(given.time_limit)
    check_output(file)
    backend, second = checked_backend(file, given.backend, given.options), find_second_backend(file)
    with collected_warnings() as said:
        try:
            question = read_verification(file, deadline)
        except TimeLimitReached as error:
            verdict = unread(backend.name, time.monotonic() - began, str(error))
            return VerifyRun(file, verdict, result_word(verdict, given.time_limit))
    verdict = verify(
        question.network,
        question.property,
        time_limit=deadline,
        backend=MipSettings(backend, given.options or None),
        oracle=question.oracle,
        cross_check=second,
        seed=given.seed,
        on_stage=listener.stage,
    )
    verdict = replace(verdict, seconds=time.monotonic() - began, warnings=tuple(dict.fromkeys((*said, *verdict.warnings))))
    return VerifyRun(file, verdict, result_word(verdict, given.time_limit))


def find_second_backend(file: VerifyFile) -> Backend | None:
    """Return the solver that checks the first one, if the file names one."""
    with file.blame("solve", "cross_check"):
        return None if file.solve.cross_check is None else get_backend(file.solve.cross_check)


def read_verification(file: VerifyFile, deadline: Deadline = NO_DEADLINE) -> VerificationQuestion:
    """Read the network and the property of a file."""
    network, source = read_network(file, deadline), file.property_source
    if isinstance(source, RegionSpec):
        found = robustness_of(file, source, network, deadline)
    else:
        with file.blame("property"):
            found = read_vnnlib(file.path(source), deadline)
            check_property(network, found)
    whole = file.network.outputs == "file"  # the file itself has no outputs before its softmax
    oracle = Oracle.of_file(file.path(file.network.file), network, deadline) if whole else Oracle.of(network)
    return VerificationQuestion(network, found, oracle)


def robustness_of(file: VerifyFile, given: RegionSpec, network: Network, deadline: Deadline = NO_DEADLINE) -> Property:
    """Return the property that an input of the region changes the class, see `mipnet.verification.robustness`."""
    region, own = read_region(file, given, network, deadline)
    robust = file.robust or RobustSpec()
    with file.blame("robust"):
        return class_change_property(
            region, size(network.output_shape), Classes(own if robust.label is None else robust.label, robust.targets)
        )
