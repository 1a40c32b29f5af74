"""Networks in files that torch.export.save wrote (.pt2).

torch.export.load can run code of a crafted file: it unpickles, evaluates expressions and looks functions up by name.  The archive
is therefore inspected first, and refused without loading if it holds anything but plain tensors, aten operators and size symbols.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from mipnet.errors import NetworkError, TimeLimitReached, UnsupportedError
from mipnet.limits.deadline import NO_DEADLINE, Deadline, TimeLimit
from mipnet.network.graph import Network
from mipnet.readers.conversion import check_file, one_line, reading
from mipnet.readers.file_bytes import no_file
from mipnet.readers.torch import check_equal, quiet, silent, weight_notes
from mipnet.readers.torch_graph import TorchReader, float64

PT2_HINT = "write one with `torch.export.save(torch.export.export(module.eval(), (example_input,)), path)`"

TARGET_PATTERN = re.compile(
    r"torch\.ops\.aten\.(?!from_file)\w+\.\w+|torch\.sym_\w+|_operator\.(getitem|mul|add|sub|floordiv|mod|neg|eq|ne|ge|gt|le|lt)"
)
SIZE_PATTERN = re.compile(
    r"(Symbol\('[a-z]+\d+'|Integer|Mul|Add|Pow|FloorDiv|Mod|Max|Min|positive=True|integer=True|[a-z]\d+|[-+*/0-9(), ])*"
)
NAME_PATTERN = re.compile(r"[\w.]*")
TREE_TYPES = {"builtins.tuple", "builtins.list", "builtins.dict"}


def read_pt2(path: str | Path, time_limit: TimeLimit = None) -> Network:
    """Read the network of a file that `torch.export.save` wrote (torch 2.8 or later), in float64.

    Raises `NetworkError` if the file is broken or not such an archive.  Raises `UnsupportedError` for operators that mipnet does not
    have, and for archives that hold more than tensors and aten operators.  Raises `TimeLimitReached` at the end of ``time_limit``, in
    seconds of the whole call; it does not end `torch.export.load` itself.
    """
    path, deadline = Path(path), Deadline.after(time_limit)
    if path.is_file():
        check_file(path, path.stat().st_size)
    program = _load(path, deadline)
    with reading(f"`{path}`", sum(value.numel() for value in program.state_dict.values())):
        with quiet():
            reader = TorchReader(program, deadline)
            network = reader.network()
            program = reader.program
        check_equal(network, lambda x: _interpret(program, x), _sizes(program), deadline)
        return network.with_notes(*weight_notes(network, deadline))


def _load(path: Path, deadline: Deadline) -> ExportedProgram:
    if not path.is_file():
        raise NetworkError(f"{no_file(path)}; expected a .pt2 file: {PT2_HINT}")
    _inspect(path, deadline)
    deadline.check(f"read `{path}`")
    try:
        with silent():
            return torch.export.load(path)
    except Exception as error:
        raise NetworkError(f"`{path}` cannot be read ({one_line(error)}); {PT2_HINT}") from None


def _inspect(path: Path, deadline: Deadline = NO_DEADLINE) -> None:
    """Raise an error unless the archive holds only plain tensors and a graph of aten operators."""
    if not zipfile.is_zipfile(path):
        kind = "a pickle, which could run any code" if path.read_bytes()[:1] == b"\x80" else "no archive, or it is cut off"
        raise NetworkError(f"`{path}` is {kind}; {PT2_HINT}")
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2]: name for name in archive.namelist()}
            if min(entry.header_offset for entry in archive.infolist()) or len(names) < len(archive.namelist()):
                raise NetworkError(f"`{path}` is cut off, or was put together from several archives; {PT2_HINT}")
            _inspect_names(path, names)
            for short, name in names.items():
                deadline.check(f"inspect `{path}`")
                if short.startswith("data/sample_inputs/"):
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True)
                elif short.endswith(".json"):
                    _inspect_graph(path, json.loads(archive.read(name)))
    except (NetworkError, UnsupportedError, TimeLimitReached):
        raise
    except Exception as error:
        raise NetworkError(f"`{path}` cannot be read ({one_line(error)}); {PT2_HINT}") from None


def _inspect_names(path: Path, names: dict[str, str]) -> None:
    if "data.pkl" in names:
        raise NetworkError(f"`{path}` was written by `torch.save`, a pickle that could run any code; {PT2_HINT}")
    if "models/model.json" not in names or [name for name in names if name.startswith("models/")] != ["models/model.json"]:
        raise NetworkError(f"`{path}` holds no exported program of torch 2.8 or later; {PT2_HINT}")
    tensors = re.compile(r"data/(weights/weight_\d+|constants/tensor_\d+|(weights|constants)/model_\w+\.json|sample_inputs/model\.pt)")
    odd = [name for name in names if name.startswith("data/") and not tensors.fullmatch(name)]
    if odd:
        raise UnsupportedError(f"`{path}` holds `{odd[0]}`, which is no plain tensor and could run code; mipnet reads tensors only")


def _inspect_graph(path: Path, content: Any) -> None:
    for key, value in _entries(content):
        if key == "use_pickle" and value:
            raise UnsupportedError(f"`{path}` holds a pickled tensor, which could run code; mipnet reads plain tensors only")
        if not isinstance(value, str):
            continue
        if key == "target" and not TARGET_PATTERN.fullmatch(value):
            raise UnsupportedError(f"`{path}` calls `{value[:80]}`; mipnet reads aten operators only")
        wrong = (key == "expr_str" and not SIZE_PATTERN.fullmatch(value)) or (key == "name" and not NAME_PATTERN.fullmatch(value))
        if wrong or (key in ("in_spec", "out_spec") and not _plain_tree(value)):
            raise UnsupportedError(f"`{path}` has `{value[:80]}` as a {key}, which mipnet does not read")


def _plain_tree(text: str) -> bool:
    return all(value is None or value in TREE_TYPES for key, value in _entries(json.loads(text)) if key == "type")


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key with its value, at any depth."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield key, value
            yield from _entries(value)
    elif isinstance(content, list):
        for value in content:
            yield from _entries(value)


def _interpret(program: ExportedProgram, x: Tensor) -> Any:
    """Return the program's output for a batch, computed operator by operator in float64."""
    stored = {**program.constants, **program.state_dict}
    given = [
        x.clone() if spec.kind == InputKind.USER_INPUT else float64(stored[spec.target or ""]).clone()
        for spec in program.graph_signature.input_specs
    ]
    results = fx.Interpreter(program.graph_module).run(*given)
    at = [spec.arg.name for spec in program.graph_signature.output_specs].index(program.graph_signature.user_outputs[0])
    return results[at]


def _sizes(program: ExportedProgram) -> tuple[int, int]:
    """Return two batch sizes that the program accepts: the same size twice if it was exported for one size only."""
    name = program.graph_signature.user_inputs[0]
    (given,) = (node for node in program.graph.nodes if node.name == name)
    size = given.meta["val"].shape[0]
    return (size, size) if isinstance(size, int) else (2, 5)
