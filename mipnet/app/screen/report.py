"""How the result of a run is printed: by the tables for its class, or by its lines."""

from __future__ import annotations

from functools import singledispatch

from rich.console import Console
from rich.text import Text

from mipnet.app.runs.compare import ComparisonRun
from mipnet.app.runs.importance_run import ImportanceRun
from mipnet.app.runs.result import RunResult
from mipnet.app.runs.verify import VerifyRun
from mipnet.app.screen.compare_tables import comparison_report
from mipnet.app.screen.solve_tables import importance_report
from mipnet.app.screen.tables import warning_lines
from mipnet.app.screen.verify_tables import print_verdict


@singledispatch
def show_result(result: RunResult, console: Console) -> None:
    """Print a result: its lines, or the tables registered for its class by ``@show_result.register``."""
    for line in result.lines:
        console.print(Text(line), soft_wrap=True)
    for warning in warning_lines(getattr(result, "warnings", None) or ()):
        console.print(warning, soft_wrap=True)


@show_result.register
def _(result: ImportanceRun, console: Console) -> None:
    console.print(importance_report(result))


@show_result.register
def _(result: ComparisonRun, console: Console) -> None:
    console.print(comparison_report(result))


@show_result.register
def _(result: VerifyRun, console: Console) -> None:
    print_verdict(result.record, console)
