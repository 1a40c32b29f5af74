"""What arguments may be, by the annotations of their parameters, and in words what is expected in place of others.

An annotation such as ``int | Sequence[str] | None`` lists kinds of value.  A kind that is not in the tables here, such as ``ArrayLike``, is
checked by the function itself, and then so are the other kinds of the same annotation.
"""

from __future__ import annotations

import ast
import math
import numbers
import operator
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import NamedTuple, TypeGuard


class ArgumentKind(NamedTuple):
    """A kind of value: whether a value is of it, and its name in words, of one value and of several."""

    holds: Callable[[object], bool]
    one: str
    several: str = ""


def is_number(given: object) -> TypeGuard[float]:
    """Return whether a value is a real number within the range of float64, or infinite; not a truth value, not NaN, not an array."""
    scalar = hasattr(given, "__float__") and getattr(given, "ndim", 0) == 0 and not isinstance(given, str)
    if not scalar or _is_truth(given) or (isinstance(given, numbers.Complex) and not isinstance(given, numbers.Real)):
        return False
    try:
        return not math.isnan(float(given))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False


def is_whole(given: object) -> TypeGuard[int]:
    """Return whether a value is a whole number that fits into 64 bits, of any class, and no truth value."""
    if _is_truth(given) or not hasattr(given, "__index__") or getattr(given, "ndim", 0) != 0:
        return False
    return -(2**63) <= operator.index(given) < 2**63


def _is_truth(given: object) -> bool:
    return isinstance(given, bool) or "bool" in str(getattr(given, "dtype", ""))


def is_of(given: object, *names: str) -> bool:
    """Return whether a value is of a class of mipnet with one of these names, which cannot be imported here."""
    return any(each.__name__ in names and each.__module__.partition(".")[0] == "mipnet" for each in type(given).__mro__)


def _is_dataset(given: object) -> bool:
    return any((each.__name__, each.__module__.partition(".")[0]) == ("Dataset", "xarray") for each in type(given).__mro__)


def _items(given: object) -> list[object] | None:
    """Return the items of a list, a tuple or an array of one axis, or None for anything else."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Collection) or getattr(given, "ndim", 1) != 1:
        return None
    return list(given)


def _list_of(kind: ArgumentKind, *, length: int | None = None, words: str = "") -> ArgumentKind:
    def holds(given: object) -> bool:
        items = _items(given)
        return items is not None and length in (None, len(items)) and all(kind.holds(item) for item in items)

    return ArgumentKind(holds, words or f"a list of {kind.several}")


NUMBER_KIND = ArgumentKind(is_number, "a number", "numbers")
WHOLE_KIND = ArgumentKind(is_whole, "a whole number", "whole numbers")
COUNT_KIND = ArgumentKind(lambda given: is_whole(given) and given >= 1, "a whole number of at least 1")
NOT_NEGATIVE_WHOLE_KIND = ArgumentKind(lambda given: is_whole(given) and given >= 0, "a whole number of at least 0")
NOT_NEGATIVE_KIND = ArgumentKind(lambda given: is_number(given) and 0 <= given < math.inf, "a finite number of at least 0")
GAP_KIND = ArgumentKind(lambda given: is_number(given) and given >= 0, "a number of at least 0")
POSITIVE_KIND = ArgumentKind(lambda given: is_number(given) and 0 < given < math.inf, "a finite number above 0")
FUNCTION_KIND = ArgumentKind(callable, "a function")
MAPPING_KIND = ArgumentKind(lambda given: isinstance(given, Mapping), "a mapping", "mappings")
NOTHING_KIND = ArgumentKind(lambda given: given is None, "None")

PAIR_WORDS = "two whole numbers of at least 1, for rows and columns"

CLASSES_OF_ARGUMENTS = {
    "Network": "a network, as `mn.read` and `mn.from_torch` return",
    "Box": "an input set, such as `mn.Box(lower, upper)` or `mn.LInf(x, radius)`",
    "Property": "a property, as `mn.read_vnnlib` and `mn.robustness_property` return",
    "Encoding": "an encoding, as `mn.encode` returns",
    "Bounds": "bounds, as `mn.propagate`, `mn.tighten` and `mn.load_bounds` return",
    "Gate": "a gate, as `mn.find_gates` returns",
    "Layer": "a layer, such as `mn.ReLU()`",
    "Importance": "a question, as `mn.Importance(network, images, labels)`",
    **dict.fromkeys(("Ball", "Case", "Classes", "Clause", "ComparisonSettings", "FinalSoftmax", "Interval", "Limits"), ""),
    **dict.fromkeys(("Loss", "MipSettings", "Node", "Objective", "Oracle", "PaperBounds", "TighteningRun", "TrainingSettings"), ""),
    **dict.fromkeys(("UserBounds", "Window"), ""),
    "Workers": "`mipnet.solving.parallel.Workers(...)`",
    "CarriedState": "a state, as `mn.OpenProblem.carried` returns",
    "Rival": "a rival, as `mn.RIVALS[name]`",
    "Rows": "rows, `mipnet.backend.Rows(matrix, lower, upper)`",
    "Program": "a program, `mipnet.backend.Program(...)`",
    "ReducedProgram": "a program, as `mn.Importance.pose` returns",
    "ParsimoniousSettings": "`mipnet.pruning.rivals.parsimonious.ParsimoniousSettings(...)`",
    "ComparisonTable": "a table, as `mn.compare` returns",
    "Result": "a result, as `mn.solve` returns",
    "NetworkFile": "a file, as `mipnet.app.files.solve_file.load_spec` returns",
    "Deadline": "a deadline, `mipnet.limits.deadline.Deadline.after(seconds)`",
}
"""Classes of mipnet that arguments have, with what is expected in words; by default it is ``mn.NAME(...)``."""

SHARED_KINDS: dict[str, ArgumentKind] = {
    "float": NUMBER_KIND,
    "int": WHOLE_KIND,
    "bool": ArgumentKind(lambda given: _is_truth(given) and getattr(given, "ndim", 0) == 0, "True or False", "truth values"),
    "str": ArgumentKind(lambda given: isinstance(given, str), "a string", "strings"),
    "None": NOTHING_KIND,
    **dict.fromkeys(("Path", "os.PathLike[str]"), ArgumentKind(lambda given: isinstance(given, os.PathLike), "a path")),
    "PathLike": ArgumentKind(lambda given: isinstance(given, str | os.PathLike), "a path"),
    "nn.Module": ArgumentKind(lambda given: hasattr(given, "state_dict") and not isinstance(given, type), "a torch.nn.Module"),
    "xr.Dataset": ArgumentKind(_is_dataset, "an xarray.Dataset with one array for each gate, as `mn.make_masks` and `Scores.scores` are"),
    "type[Layer]": ArgumentKind(
        lambda given: isinstance(given, type) and hasattr(given, "forward"), "a class of layers, such as `mn.ReLU`"
    ),
    "type[np.floating]": ArgumentKind(
        lambda given: isinstance(given, type) and "floating" in [each.__name__ for each in given.__mro__],
        "`numpy.float32` or `numpy.float64`",
    ),
    "FeatureDim": ArgumentKind(
        lambda given: given is None or isinstance(given, str) or all(isinstance(each, str) for each in _items(given) or [None]),
        "the name of a dimension, or a list of names",
    ),
    "linopy.Model": ArgumentKind(lambda given: hasattr(given, "variables") and hasattr(given, "add_constraints"), "a linopy model"),
    "torch.dtype": ArgumentKind(lambda given: type(given).__name__ == "dtype", "a type of torch, such as `torch.float32`"),
    "InputPolytope": ArgumentKind(
        lambda given: is_of(given, "HalfSpaces", "Hull"), "a polytope, as `polytope` of `mn.Polytope(...)` and `mn.ConvexHull(...)`"
    ),
    "Dataset": ArgumentKind(lambda given: is_of(given, "Dataset"), "a data set, as `mn.load` returns"),
    "LabelledImages": ArgumentKind(
        lambda given: hasattr(given, "images") and hasattr(given, "labels"), "`mn.LabelledImages(images, labels)`"
    ),
    "tuple[PathLike, PathLike]": ArgumentKind(
        lambda given: isinstance(given, tuple | list) and len(given) == 2 and all(isinstance(each, str | os.PathLike) for each in given),
        "two names, of the images and of the labels",
    ),
    "Shape": _list_of(WHOLE_KIND, words="a shape, such as (1, 28, 28)"),
    "Pair": _list_of(WHOLE_KIND, length=2, words="two whole numbers, for rows and columns"),
    "Sides": _list_of(WHOLE_KIND, length=4, words="four whole numbers: above, below, left, right"),
    "ClipRange": ArgumentKind(
        lambda given: given is None or bool(_list_of(NUMBER_KIND, length=2).holds(given)), "two numbers, the smaller one first, or None"
    ),
    **dict.fromkeys(("Options", "BoundsByNode"), MAPPING_KIND),
    **dict.fromkeys(("Derived", "OnEvent", "OnEpoch", "OnStage"), FUNCTION_KIND),
    **{
        name: ArgumentKind(lambda given, name=name: is_of(given, name), words or f"`mn.{name}(...)`", f"`mn.{name}(...)`")  # type: ignore[misc]
        for name, words in CLASSES_OF_ARGUMENTS.items()
    },
}
"""The kinds of value by their names in annotations."""


def _is_model(given: object) -> bool:
    return is_of(given, "Encoding", "Problem") or SHARED_KINDS["linopy.Model"].holds(given)


MODEL_KIND = ArgumentKind(_is_model, "an encoding, as `mn.encode` returns, or a linopy model")
OVERRIDE_KIND = ArgumentKind(lambda given: isinstance(given, str) or is_of(given, "Override"), "", "strings, such as `solve.time_limit=60`")
KINDS_BY_ANNOTATION: dict[str, ArgumentKind] = {
    "Backend": ArgumentKind(
        lambda given: not isinstance(given, type) and hasattr(given, "features") and hasattr(given, "open"),
        "a backend, as `mn.get_backend` returns",
    ),
    "Encoding | linopy.Model | Problem": MODEL_KIND,
    "str | Path": SHARED_KINDS["PathLike"],
    "Sequence[Override | str]": _list_of(OVERRIDE_KIND),
    "str | os.PathLike[str]": SHARED_KINDS["PathLike"],
}
"""The kinds of whole annotations whose parts alone say too little."""

KINDS_BY_NAME: dict[tuple[str, str], ArgumentKind] = {
    **{("int", name): NOT_NEGATIVE_WHOLE_KIND for name in ("seed", "epochs", "until", "workers")},
    **{("int", name): COUNT_KIND for name in ("batch", "repeats", "every", "at_once", "groups")},
    **{("float", name): NOT_NEGATIVE_KIND for name in ("epsilon", "tolerance", "margin", "within", "hard")},
    **{("float", name): GAP_KIND for name in ("gap", "mip_gap", "gap_abs")},
    ("Tensor", "x"): ArgumentKind(lambda given: type(given).__module__.partition(".")[0] == "torch", "a torch.Tensor"),
    ("float", "time"): ArgumentKind(lambda given: given is None or is_number(given), "a number of seconds"),
    **{("float", name): POSITIVE_KIND for name in ("lr", "divisor")},
    ("float", "time_limit"): ArgumentKind(lambda given: is_number(given) and given > 0, "a positive number of seconds"),
    **{("Pair", name): _list_of(COUNT_KIND, length=2, words=PAIR_WORDS) for name in ("kernel", "stride", "dilation", "out")},
}
"""The kinds by their names in annotations and the names of parameters: a part of the numbers."""


def _instead_of_network(given: object) -> str | None:
    torch = sys.modules.get("torch")  # a module of torch cannot be here before torch is loaded
    found = torch is not None and isinstance(given, torch.nn.Module)
    return "a network: write `mn.from_torch(module, example_input)`" if found else None


def _instead_of_module(given: object) -> str | None:
    found = (type(given).__module__, type(given).__name__) == ("mipnet.network.graph", "Network")
    return "a torch.nn.Module: give the module that the network was read from" if found else None


def _instead_of_formulation(given: object) -> str | None:
    if given is None or isinstance(given, Mapping) or is_of(given, "EmbeddingSettings"):
        return None
    return f"a mapping from layers to names, such as {{'relu': {given!r}}}" if isinstance(given, str) else "a mapping from layers to names"


def _instead_of_model(given: object) -> str | None:
    found = type(given).__module__.partition(".")[0] == "pypsa" and hasattr(given, "snapshots")
    return "a linopy model: of a network of PyPSA it is `n.model`, after `n.optimize.create_model()`" if found else None


EASILY_MISTAKEN: dict[str, Callable[[object], str | None]] = {
    **dict.fromkeys(("network", "first", "second"), _instead_of_network),
    **dict.fromkeys(("model", "problem"), _instead_of_model),
    "module": _instead_of_module,
    "formulation": _instead_of_formulation,
}
"""For arguments that are easily mistaken: what is expected in place of a value of the wrong kind, or None if it is not wrong."""

NOT_MISTAKEN = ("Network | nn.Module", "Network | torch.nn.Module | Estimator | str | Path", "str")
"""Annotations of arguments that are called as in `EASILY_MISTAKEN`, and take what is a mistake elsewhere."""


@cache
def _kinds(name: str, annotation: str) -> tuple[ArgumentKind, ...]:
    """Return the kinds of value that a parameter takes; none if it is not checked."""
    if annotation in KINDS_BY_ANNOTATION:
        return (KINDS_BY_ANNOTATION[annotation],)
    found = [_kind(name, each) for each in _alternatives(annotation)]
    return () if None in found else tuple(each for each in found if each is not None)


def _alternatives(annotation: str) -> list[str]:
    """Return the parts of an annotation between bars that are not in brackets."""
    parts, depth = [""], 0
    for character in annotation:
        depth += (character == "[") - (character == "]")
        if character == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _kind(name: str, part: str) -> ArgumentKind | None:
    if (part, name) in KINDS_BY_NAME:
        return KINDS_BY_NAME[part, name]
    if part in SHARED_KINDS:
        return SHARED_KINDS[part]
    outer, _, inner = part.partition("[")
    if outer == "Literal":
        choices = ast.literal_eval(f"[{inner.removesuffix(']')}]")
        words = " or ".join(part for part in (", ".join(f"`{choice}`" for choice in choices[:-1]), f"`{choices[-1]}`") if part)
        return ArgumentKind(lambda given: isinstance(given, str) and given in choices, words)
    if outer == "Callable":
        return FUNCTION_KIND
    if outer == "Mapping":
        return MAPPING_KIND
    if outer == "Sequence" or re.fullmatch(r"tuple\[[\w.]+, \.\.\.\]", part):
        item = _kind("", inner.removesuffix("]").removesuffix(", ..."))
        return None if item is None or not item.several else _list_of(item)
    return None


def is_checked(name: str, annotation: str) -> bool:
    """Return whether the arguments of a parameter are checked by `wrong_kind`."""
    return name in EASILY_MISTAKEN or bool(_kinds(name, annotation))


def wrong_kind(name: str, annotation: str, given: object) -> str | None:
    """Return in words what a parameter expects in place of a value of the wrong kind, None if the value is not wrong."""
    if name in EASILY_MISTAKEN and annotation not in NOT_MISTAKEN and (expected := EASILY_MISTAKEN[name](given)) is not None:
        return expected
    kinds = _kinds(name, annotation)
    if not kinds or any(kind.holds(given) for kind in kinds):
        return None
    words = list(dict.fromkeys(kind.one for kind in sorted(kinds, key=lambda kind: kind is NOTHING_KIND)))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])}, or {words[-1]}"
