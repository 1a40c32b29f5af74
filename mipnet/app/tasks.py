"""The table of tasks: one row for each value of the key ``task`` in a YAML file.

A task consists of a typed file class, a run function and a row here.  The row gives the command of the task with its help, the JSON
schema of its files, the message for a file of another task, and the run folder.  Rows hold import paths, ``"module:name"``, which are
imported on first use, so that ``mipnet --help`` loads neither pydantic nor torch.  `register_task` adds a row from outside.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from typing import Any, get_args

from mipnet.errors import InputError, suggest_keywords
from mipnet.limits.memory import memory_limit

COMMANDS_WITHOUT_TASK = ("inspect", "bounds", "backends", "init", "schema")
"""Commands that do not run a task; a task cannot have their names."""

IMPORT_HINT = "one of your own must be imported in this process"
"""The end of messages about unknown names of things that can be registered from outside."""


@suggest_keywords
@dataclass(frozen=True)
class Task:
    """One task.

    ``name`` is the value of the key ``task`` in the YAML file, and ``command`` the name of the command (``name`` if left out).
    ``file`` is the class of the YAML file, a subclass of `mipnet.app.files.base.SpecFile`, or its import path ``"module:name"``.
    ``run`` is the run function, or its import path: it takes the file and a `mipnet.app.runs.listener.RunListener` and returns a
    `mipnet.app.runs.result.RunResult`.  The first line of ``help`` is the `summary`, for the list of commands in `mipnet --help`; write at
    most 55 characters.  The command's own help shows all of ``help``, and ``success``, which says what exit status 0 means.
    ``folder`` lists the files that a run folder may hold, the YAML file first (``NAME.yaml`` and ``result.json`` if left out).
    ``save`` writes the run folder of a result.  If the task ``resumes``, its command has the option ``--resume``, and its run function
    takes ``resume``, which is True if what an earlier run has finished is to be kept (`mipnet.app.runs.resume.resumable`).
    """

    name: str
    file: str | type[Any]
    run: str | Callable[..., Any]
    help: str
    success: str
    command: str = ""
    folder: tuple[str, ...] = ()
    save: str | Callable[..., Any] = "mipnet.app.runs.folder:save_result"
    resumes: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "command", self.command or self.name)
        object.__setattr__(self, "folder", self.folder or (f"{self.command}.yaml", "result.json"))

    @property
    def summary(self) -> str:
        """The first line of ``help``, which `mipnet --help` shows."""
        return self.help.partition("\n")[0]

    def file_class(self) -> type[Any]:
        """Return the class of the task's YAML files."""
        found: type[Any] = _imported(self.file)
        return found

    def run_function(self) -> Callable[..., Any]:
        """Return the run function; it runs within ``solve.memory_limit`` of its file, if the file has such a key."""
        found: Callable[..., Any] = _imported(self.run)

        @wraps(found)
        def run(file: Any, *arguments: Any, **keywords: Any) -> Any:
            with memory_limit(getattr(getattr(file, "solve", None), "memory_limit", None)):
                return found(file, *arguments, **keywords)

        return run

    def save_function(self) -> Callable[..., Any]:
        """Return the function that writes the run folder."""
        found: Callable[..., Any] = _imported(self.save)
        return found


def _imported(given: Any) -> Any:
    """Return the object at an import path ``"module:name"``; an object is returned as it is."""
    if not isinstance(given, str):
        return given
    module, colon, name = given.partition(":")
    if not colon:
        raise InputError(f"the import path is `{given}`; expected `module:name`")
    return getattr(import_module(module), name)


TASKS_BY_NAME: dict[str, Task] = {}
"""The tasks by name, in the order of `mipnet --help`."""


def register_task(task: Task) -> Task:
    """Add a task to the table and return it.

    Raises `InputError` if its name or its command is taken, or if its file class is given and does not accept its name.
    """
    taken = {*COMMANDS_WITHOUT_TASK, *(word for each in TASKS_BY_NAME.values() for word in (each.name, each.command))}
    for word in (task.name, task.command):
        if word in taken:
            raise InputError(f"there is a task or a command `{word}` already; choose another name")
    if not isinstance(task.file, str):
        _check_file_class(task.name, task.file)
    TASKS_BY_NAME[task.name] = task
    return task


def _check_file_class(name: str, kind: type[Any]) -> None:
    """Raise `InputError` unless the key ``task`` of a file class takes this name."""
    word, field = getattr(kind, "__name__", repr(kind)), getattr(kind, "model_fields", {}).get("task")
    if field is None:
        raise InputError(f"the file class of task `{name}` is `{word}`; expected a subclass of `mipnet.app.files.base.SpecFile`")
    if name not in (accepted := get_args(field.annotation)):
        takes = f"`task` is {' or '.join(map(repr, accepted))}" if accepted else "`task` is not declared"
        raise InputError(f'the file class `{word}` does not fit task `{name}`: {takes}; declare `task: Literal["{name}"]`')


def find_task(word: str) -> Task:
    """Return the task of this name or command; raises `InputError` with a suggestion if there is none."""
    by_word = {word: task for task in TASKS_BY_NAME.values() for word in (task.name, task.command)}
    if word not in by_word:
        close = difflib.get_close_matches(word, by_word, n=1)
        known = ", ".join(task.command for task in TASKS_BY_NAME.values())
        hint = f"did you mean `{close[0]}`?" if close else f"expected one of {known}; {IMPORT_HINT}"
        raise InputError(f"there is no task `{word}`; {hint}")
    return by_word[word]


for _task in (
    Task(
        name="importance",
        command="solve",
        file="mipnet.app.files.solve_file:SolveFile",
        run="mipnet.app.runs.solve:run_importance",
        help="Compute importance scores and prune by them.\n\n"
        "A mixed-integer program gives the scores. Units with low scores are pruned, and the smaller network is evaluated.",
        success="a verified solution",
        folder=("model.yaml", "result.json", "scores.nc", "masks.nc", "parts.nc", "curve.svg", "solver.log"),
        resumes=True,
    ),
    Task(
        name="verify",
        file="mipnet.app.files.verify_file:VerifyFile",
        run="mipnet.app.runs.verify:run_verification",
        help="Find a counterexample, or prove that there is none.\n\n"
        "Decides whether some input of an input set satisfies a property, which says what must not happen.",
        success="sat, unsat, unknown or timeout (of many instances: no error)",
        folder=("verify.yaml", "result.json", "result.txt"),
    ),
    Task(
        name="compare",
        file="mipnet.app.files.compare_file:CompareFile",
        run="mipnet.app.runs.compare:run_comparison",
        save="mipnet.app.runs.compare:save_comparison",
        help="Compare importance scores with rivals.\n\nAll methods prune the same share of parameters, for several shares.",
        success="a verified solution",
        folder=("compare.yaml", "result.json", "scores.nc", "table.md", "curve.svg", "curve.png"),
        resumes=True,
    ),
    Task(
        name="reach",
        file="mipnet.app.files.reach_file:ReachFile",
        run="mipnet.app.runs.reach:run_reach",
        help="Certify bounds of the outputs over an input set.\n\n"
        "Gives lower and upper bounds of each output, or of linear functions of the outputs, with inputs that attain them.",
        success="found to the tolerance",
    ),
    Task(
        name="agree",
        file="mipnet.app.files.agree_file:AgreeFile",
        run="mipnet.app.runs.agree:run_agreement",
        help="Certify how far two networks differ on an input set.\n\n"
        "Bounds the largest difference of their outputs, or proves that both name the same class.",
        success="proven",
    ),
    Task(
        name="compress",
        file="mipnet.app.files.compress_file:CompressFile",
        run="mipnet.app.runs.compress:run_compression",
        help="Make a smaller network with equal outputs.\n\nThe outputs are equal over an input set, and this is proven.",
        success="proven equal",
        resumes=True,
    ),
    Task(
        name="distortion",
        file="mipnet.app.files.distortion_file:DistortionFile",
        run="mipnet.app.runs.distortion:run_distortion",
        help="Certify the distance to the nearest other class.\n\n"
        "Bounds the smallest distance from an image at which the class changes, and gives the nearest such input found.",
        success="found to the tolerance",
        resumes=True,
    ),
    Task(
        name="margin",
        file="mipnet.app.files.margin_file:MarginFile",
        run="mipnet.app.runs.margin:run_margin",
        help="Certify the largest margin of another class.\n\n"
        "The margin is the output of another class less that of the label. Gives an input of the set that attains it.",
        success="found to the tolerance",
    ),
    Task(
        name="counterfactual",
        file="mipnet.app.files.counterfactual_file:CounterfactualFile",
        run="mipnet.app.runs.counterfactual:run_counterfactual",
        help="Find the nearest input with another answer.\n\n"
        "Proves how near it is, and finds further ones that differ. Features may be whole numbers, categories, or fixed.",
        success="found to the tolerance, or proven that there is none",
    ),
    Task(
        name="activation",
        file="mipnet.app.files.activation_file:ActivationFile",
        run="mipnet.app.runs.activation:run_activation",
        help="Maximise the score of a class, or a unit.\n\nGives the input of a set that attains it, and a proven upper bound.",
        success="found to the tolerance",
    ),
):
    register_task(_task)
