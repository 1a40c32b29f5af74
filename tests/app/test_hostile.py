"""The hostile list: inputs of the command line that are made to hurt, each with one clear line and an exit status that is not 0.

Every file that mipnet reads, as each of the things that are no such file; YAML that hurts; options with odd values; places that cannot be
written; schedulers that are none; a disk that is full; mistakes of mipnet itself; signals.  The last test says how many there are:
``python -m pytest tests/app/test_hostile.py -s``.
"""

from __future__ import annotations

import io
import json
import math
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import mipnet.app.cli.commands_without_task as commands
import mipnet.solving.dask_client
from mipnet.app.cli.main import main
from mipnet.app.runs import reach as reach_run
from mipnet.app.runs import solve as solve_run
from mipnet.app.tasks import TASKS_BY_NAME
from tests.sweep import marked, sweep

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="named pipes and limits of Unix")

SECONDS_MAX = 60
"""An input that is not answered within these seconds hangs."""

SCHEDULER_SECONDS = 0.5
"""Seconds to wait for a scheduler in these tests."""

FILE_BYTES_MAX = 100
"""The size at which the disk of these tests is full."""

SEEN: Counter[tuple[str, int]] = Counter()
"""The number of inputs by group and exit status."""

SOLVE = "mipnet: 1\ntask: importance\nnetwork: {file: net.pt2}\ndata: {source: npz, file: d.npz, total: 3, holdout: none}\n"
LAYERS = """mipnet: 1
task: importance
network:
  file: w.pt
  input_shape: [4]
  layers:
    - {name: fc1, type: Linear, in_features: 4, out_features: 3}
    - {name: relu1, type: ReLU}
    - {name: fc2, type: Linear, in_features: 3, out_features: 2}
data: {source: npz, file: d.npz, total: 3, holdout: none}
"""
REACH = "mipnet: 1\ntask: reach\nnetwork: {file: net.pt2}\nbox: {lower: 0, upper: 1}\n"
VERIFY = "mipnet: 1\ntask: verify\nnetwork: {file: net.pt2}\nproperty: p.vnnlib\n"
COMPRESS = "mipnet: 1\ntask: compress\nnetwork: {file: net.pt2}\nbox: {lower: 0, upper: 1}\n"
FILES = {"solve": SOLVE, "layers": LAYERS, "reach": REACH, "verify": VERIFY, "compress": COMPRESS}

PROPERTY = "".join(f"(declare-const X_{i} Real)(assert (>= X_{i} 0))(assert (<= X_{i} 1))\n" for i in range(4))
PROPERTY += "(declare-const Y_0 Real)(declare-const Y_1 Real)(assert (>= Y_0 100.0))\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network in several formats, with images, a property and a file for each task."""
    made = tmp_path_factory.mktemp("hostile")
    torch.manual_seed(0)
    module = nn.Sequential()
    for name, part in (("fc1", nn.Linear(4, 3)), ("relu1", nn.ReLU()), ("fc2", nn.Linear(3, 2))):
        module.add_module(name, part)
    torch.export.save(torch.export.export(module.eval(), (torch.zeros(2, 4),)), made / "net.pt2")
    torch.save(module.state_dict(), made / "w.pt")
    save_file(module.state_dict(), made / "w.safetensors")
    np.savez(made / "d.npz", images=np.random.default_rng(0).random((10, 4)), labels=np.arange(10) % 2)
    (made / "p.vnnlib").write_text(PROPERTY)
    (made / "i.csv").write_text("net.pt2,p.vnnlib,5\n")
    for name, text in FILES.items():
        (made / f"{name}.yaml").write_text(text)
    return made


@pytest.fixture(autouse=True)
def elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(mipnet.solving.dask_client, "SCHEDULER_SECONDS_MAX", SCHEDULER_SECONDS)


@contextmanager
def alarm() -> Iterator[None]:
    """Raise TimeoutError in what hangs."""

    def ring(*_: object) -> None:
        raise AssertionError(f"no answer after {SECONDS_MAX} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS_MAX)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def one_line(group: str, *arguments: str, expected: int = 2) -> str:
    """Run a command line that fails; it prints one line on standard error and nothing else, and return that line.

    When a file cannot be saved, `mipnet bounds` has printed its table, and other commands print the result that would be lost, as JSON.
    """
    out, err = io.StringIO(), io.StringIO()
    with alarm(), redirect_stdout(out), redirect_stderr(err):
        status = main(arguments)
    said = err.getvalue()
    SEEN[group, status] += 1
    assert status == expected, said
    if out.getvalue() and "--save" not in arguments:
        assert expected == 1
        assert json.loads(out.getvalue())["mipnet"]
    assert said.startswith("error: "), said
    assert said.endswith("\n")
    assert said.count("\n") == 1, said
    assert "Traceback" not in said
    assert len(said) < 1200
    return said


def as_file(text: str | bytes, *arguments: str) -> list[str]:
    """Write a file, and return the arguments that read it."""
    Path("h.yaml").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return [*(arguments or ("solve",)), "h.yaml", "-q"]


def used_in(name: str, other: str, text: str, *arguments: str) -> list[str]:
    assert name in text
    return as_file(text.replace(name, other), *arguments)


READERS: dict[str, Callable[[str], list[str]]] = {
    "a.yaml": lambda name: ["solve", name, "-q"],
    "r.yaml": lambda name: ["reach", name, "-q"],
    "v.yaml": lambda name: ["verify", name, "-q"],
    "c.yaml": lambda name: ["compare", name, "-q"],
    "a.pt2": lambda name: ["inspect", name],
    "a.onnx": lambda name: ["inspect", name],
    "a.onnx.gz": lambda name: ["verify", name, "p.vnnlib", "-q"],
    "b.pt2": lambda name: used_in("net.pt2", name, REACH, "reach"),
    "a.pt": lambda name: used_in("w.pt", name, LAYERS),
    "a.pth": lambda name: used_in("w.pt", name, LAYERS),
    "a.safetensors": lambda name: used_in("w.pt", name, LAYERS),
    "a.vnnlib": lambda name: ["verify", "net.pt2", name, "-q"],
    "b.vnnlib": lambda name: used_in("p.vnnlib", name, VERIFY, "verify"),
    "a.csv": lambda name: ["verify", "--instances", name, "--output", "none", "-q"],
    "a.npz": lambda name: used_in("d.npz", name, SOLVE),
    "a.idx": lambda name: used_in("npz, file: d.npz", f"idx, images: {name}, labels: {name}", SOLVE),
    "scores": lambda name: as_file(f"mipnet: 1\ntask: compare\nscores: {name}\n", "compare"),
}
"""For each kind of file that mipnet reads: the arguments of a command that reads it."""


def link(path: Path, target: str) -> None:
    path.symlink_to(target)


MAKERS: dict[str, Callable[[Path], None]] = {
    "missing": lambda path: None,
    "a folder": Path.mkdir,
    "a named pipe": lambda path: os.mkfifo(path),
    "a link to itself": lambda path: link(path, path.name),
    "a link to nothing": lambda path: link(path, "nothing"),
    "a link to endless zeros": lambda path: link(path, "/dev/zero"),
    "a link to a full disk": lambda path: link(path, "/dev/full"),
    "empty": Path.touch,
    "random bytes": lambda path: path.write_bytes(np.random.default_rng(0).bytes(4000)) and None,
    "zeros": lambda path: path.write_bytes(bytes(4000)) and None,
    "text": lambda path: path.write_text("hello world\n" * 50) and None,
    "gzip that is cut off": lambda path: path.write_bytes(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x4b") and None,
    "zip that is cut off": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(40)) and None,
    "utf-16": lambda path: path.write_bytes("hello world\n".encode("utf-16")) and None,
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_no_such_file(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / name
    MAKERS[kind](path)
    if kind == "a folder" and name == "scores":
        (path / "result.json").write_text("{}")
    said = one_line("files", *READERS[name](str(path)))
    assert path.name.partition(".")[0] in said or "h.yaml" in said
    assert not Path("none").exists()


SOLVES = (
    *("time_limit: 1,5", "mip_gap: 0,01", "time_limit: 1:30", "time_limit: 012", "time_limit: 60s", "time_limit: 1 min", "time_limit: on"),
    *("time_limit: 2026-01-01", "time_limit: .inf", "time_limit: .nan", "time_limit: 1e400", "time_limit: '5'", "time_limit: 50%"),
    *("time_limit: 0", "time_limit: -1", "nodes: 1e5", "nodes: 1.5", "memory: 4GB", "backend: no", "backend: SCIP ", "backend: hihgs"),
    *("backend: 1", "start: no", "start: off", "decouple: false", "decouple: klass", "workers: 2", "scheduler: no", "options: no"),
    *("options: {threads: [1]}", "options: {thraeds: 1}", "path: 0.5:20", "path: {lambda: [1, 1]}", "path: {lamda: [1, 2]}", "5", "5: 3"),
    *("true: 3", "~: 3", "[1]: 3", "{a: 1}: 3", "timeout: 5", "time-limit: 5", "time_limit:5", "time_limit: 5, time_limit: 6", "seed: 1"),
    *("time_limit: \u22125", "time_limit:\u00a05", "\u201ctime_limit\u201d: 5", "time_limit: 5\t", "\ttime_limit: 5", "time_limit: *x"),
    *("time_limit: !!float x", "time_limit: !!python/name:os.system", "time_limit: &a [*a]", "time_limit: [", "time_limit: 'x"),
)

DOCUMENTS: dict[str, str | bytes] = {
    **{f"solve: {text}": f"{SOLVE}solve: {{{text}}}\n" for text in SOLVES},
    "digits": LAYERS.replace("[4]", f"[{'9' * 400}]"),
    "many digits": LAYERS.replace("[4]", f"[{'9' * 9000}]"),
    "hexadecimal digits": LAYERS.replace("[4]", f"[0x{'f' * 9000}]"),
    "octal digits": LAYERS.replace("[4]", f"[0{'7' * 9000}]"),
    "sexagesimal digits": LAYERS.replace("[4]", f"[1{':59' * 3000}]"),
    "a shape of many elements": LAYERS.replace("[4]", "[100000, 100000, 100000]"),
    "a layer of many features": LAYERS.replace("in_features: 4", "in_features: 9999999999"),
    "a layer of 400 digits": LAYERS.replace("in_features: 4", f"in_features: {'9' * 400}"),
    "a layer that is no layer": LAYERS.replace("type: ReLU", "type: __class__"),
    "a layer called no, of no type": LAYERS.replace("name: relu1, type: ReLU", "name: no"),
    "a zero in a path": SOLVE.replace("net.pt2", '"ne\\0t.pt2"'),
    "a zero in a folder": SOLVE + 'output: "a\\0b"\n',
    "half a character in a path": SOLVE.replace("net.pt2", '"\\ud800.pt2"'),
    "an unknown user's home": SOLVE.replace("net.pt2", "~nosuchuser/x.pt2"),
    "a long path": SOLVE.replace("net.pt2", "a" * 5000 + ".pt2"),
    "a path of 5000 folders": SOLVE.replace("net.pt2", "a/" * 5000 + "x.pt2"),
    "an address": SOLVE.replace("net.pt2", "https://example.org/net.onnx"),
    "nested lists": f"{SOLVE}output: {'[' * 5000}{']' * 5000}\n",
    "nested mappings": f"{SOLVE}output: {'{a: ' * 5000}{'}' * 5000}\n",
    "nested blocks": "".join(f"{' ' * depth}a:\n" for depth in range(1500)),
    "300 lists": f"{SOLVE}output: {'[' * 300}{']' * 300}\n",
    "a list of 20,000": f"{SOLVE}output: [{'1,' * 20_000}]\n",
    "a file of 5 MB": SOLVE + "#" * (5 * 2**20),
    "lists that multiply": "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]\n" for i in range(1, 40)),
    "mappings that multiply": "a0: &a0 {k: x}\n" + "".join(f"a{i}: &a{i} {{k: *a{i - 1}, l: *a{i - 1}}}\n" for i in range(1, 60)),
    "merge keys that multiply": "a0: &a0 {k: x}\n" + "".join(f"a{i}: &a{i} {{<<: [{f'*a{i - 1},' * 9}]}}\n" for i in range(1, 40)),
    "merge keys of many": f"a: &a {{{', '.join(f'k{i}: x' for i in range(3000))}}}\n" + "".join(f"b{i}: {{<<: *a}}\n" for i in range(2000)),
    "layers that multiply": LAYERS.replace(
        "type: ReLU", "type: ReLU, inplace: [&a [1,1,1,1,1,1], &b [*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b], &d [*c,*c,*c,*c,*c,*c],"
        " &e [*d,*d,*d,*d,*d,*d], &f [*e,*e,*e,*e,*e,*e], &g [*f,*f,*f,*f,*f,*f], *g, *g]",
    ),
    "itself": "a: &a {<<: *a}\n",
    "a list": "- mipnet: 1\n",
    "a word": "mipnet",
    "two documents": SOLVE + "---\n" + SOLVE,
    "json": '{"mipnet": 1}',
    "utf-16 without a mark": SOLVE.encode("utf-16-be"),
    "utf-32": SOLVE.encode("utf-32"),
    "latin-1": f"{SOLVE}output: M\u00fcnchen\n".encode("latin-1"),
    "a zero": SOLVE.replace("net.pt2", "ne\0t.pt2"),
    "another version": SOLVE.replace("mipnet: 1", "mipnet: 2"),
    "a task of no name": SOLVE.replace("importance", "no"),
    "a task of another command": SOLVE.replace("importance", "reach"),
    "no such key": SOLVE + "networks: {}\n",
    "a section of nothing": SOLVE + "solve:\n",
    "output: no": SOLVE + "output: no\n",
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_yaml_that_hurts(name: str) -> None:
    said = one_line("YAML", *as_file(DOCUMENTS[name]))
    assert "h.yaml" in said or "`/" in said


SETS = (
    *("", "=", "a", "=3", "a=[", "a..b=3", ".=1", "solve=1", "solve.time_limit=1,5", "solve.time_limit=[1", "mipnet.x=1", "solve.5=1"),
    *("network.layers.9.type=ReLU", "network.layers.-1=x", f"network.layers.{'9' * 5000}=x", "network.layers.x=1", "network.layers=3"),
    *("network.layers.0=3", "network.layers.0.type=linear", "network.layers.0.in_features=four", "network.layers.0.bias=maybe"),
    *("network.layers.1.inplace=1", "network.layers.0.name=true", "network.layers.0.name=1.5", "network.layers.1.type=5", "data.total=0"),
    *(f"solve.time_limit={'9' * 5000}", "solve.time_limit=&a [*a]", "data={", "data=digits", ".".join("a" * 3000) + "=1", "output=[]"),
    *("gates.layers=[fc9]", "gates.layers=fc1", "gates.layers=[1.5]", "formulation.relu=bigm", "formulation.parts=0", "prune.threshold=2"),
    *("objective.loss=Hinge", "objective.weight=five", "network.input_shape=[true]", "network.input_shape=[]", "network.file=no"),
)


@pytest.mark.parametrize("given", SETS, ids=[text[:40] for text in SETS])
def test_set_with_odd_values(given: str) -> None:
    one_line("--set", "solve", "layers.yaml", "-q", "--set", given)


OPTIONS = (
    ["solve", "solve.yaml", "--time-limit", "1,5"],
    ["solve", "solve.yaml", "--time-limit", "nan"],
    ["solve", "solve.yaml", "--time-limit", "-1"],
    ["solve", "solve.yaml", "--backend", "hihgs"],
    ["solve", "solve.yaml", "--backend", ""],
    ["solve", "solve.yaml", "--workers", "1e3"],
    ["solve", "solve.yaml", "--path", "lambda"],
    ["solve", "solve.yaml", "--path", "lambda=1,5:2"],
    ["solve", "solve.yaml", "--path", "weight=1:2"],
    ["solve", "solve.yaml", "--resume"],
    ["solve", "a\0b.yaml"],
    ["solve", ""],
    ["slove", "solve.yaml"],
    ["solve"],
    ["solve", "solve.yaml", "reach.yaml"],
    ["verify"],
    ["verify", "net.pt2"],
    ["verify", "net.pt2", "p.vnnlib", "--timeout", "nan"],
    ["verify", "net.pt2", "p.vnnlib", "--timeout", "0"],
    ["verify", "net.pt2", "p.vnnlib", "--backend", "hihgs", "-q"],
    ["verify", "net.pt2", "p.vnnlib", "--seed", "-1"],
    ["verify", "net.pt2", "p.vnnlib", "--workers", "2"],
    ["verify", "--instances", "i.csv"],
    ["verify", "reach.yaml", "-q"],
    ["bounds", "solve.yaml", "--method", "alhpa"],
    ["bounds", "solve.yaml", "--epsilon", "-1"],
    ["bounds", "solve.yaml", "--epsilon", "nan"],
    ["bounds", "solve.yaml", "--method", "lp", "--time-limit", "-1"],
    ["schema", "solv"],
    ["schema", "solve", "--reach"],
    ["init", "solve.yaml"],
    ["inspect", "net.pt2", "--set", "a=1"],
    ["inspect", "net.h5"],
)


@pytest.mark.parametrize("arguments", OPTIONS, ids=" ".join)
def test_options_with_odd_values(arguments: list[str]) -> None:
    one_line("options", *arguments)


WRITERS: dict[str, Callable[[str], list[str]]] = {
    "solve --output": lambda name: ["solve", "solve.yaml", "-q", "--output", name],
    "reach --output": lambda name: ["reach", "reach.yaml", "-q", "--output", name],
    "verify --output": lambda name: ["verify", "verify.yaml", "-q", "--output", name],
    "--instances": lambda name: ["verify", "--instances", "i.csv", "-q", "--output", name],
    "--results-file": lambda name: ["verify", "net.pt2", "p.vnnlib", "-q", "--results-file", name],
    "--save": lambda name: ["bounds", "solve.yaml", "--save", name],
    "init": lambda name: ["init", name, "--force"],
    "compress": lambda name: ["compress", "compress.yaml", "-q", "--set", f"save={name}"],
}
"""For each place that mipnet writes to: the arguments of a command that writes there."""

PLACES: dict[str, Callable[[Path], str]] = {
    "a named pipe": lambda path: os.mkfifo(path) or "",  # type: ignore[func-returns-value]
    "a link to itself": lambda path: link(path, path.name) or "",  # type: ignore[func-returns-value]
    "below a file": lambda path: path.write_text("x") and "/x.npz",
    "a name that is too long": lambda path: "a" * 300 + ".npz",
    "no folder may be made": lambda path: "\0",
    "a device": lambda path: "\0",
}


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("name", WRITERS)
def test_a_place_that_cannot_be_written(name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found before the work: no solver, no bounds and no search run."""
    given = tmp_path / ("x.pt2" if name == "compress" else "x.npz")
    place = str(given) + PLACES[kind](given)
    place = {"no folder may be made": "/proc/x/y.pt2", "a device": "/dev/null"}.get(kind, place)
    if name == "compress" and kind in ("below a file", "a name that is too long"):
        place = place.replace(".npz", ".pt2")
    before = sorted(tmp_path.rglob("*"))
    for module, work in ((solve_run, "solve"), (reach_run, "reach")):
        monkeypatch.setattr(module, work, None)
    one_line("places", *WRITERS[name](place))
    assert sorted(tmp_path.rglob("*")) == before
    assert not (given.exists() and given.is_file() and kind != "below a file")


def test_a_folder_that_is_missing_is_made_for_a_run(tmp_path: Path) -> None:
    assert main(["reach", "reach.yaml", "-q", "--output", str(tmp_path / "a" / "b" / "run")]) == 0
    assert (tmp_path / "a" / "b" / "run" / "result.json").is_file()


@contextmanager
def server(answer: bytes) -> Iterator[str]:
    """The address of a server that gives every client this answer, and keeps the connection open."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        clients: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                    clients.append(client)
                    client.sendall(answer)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        for client in clients:
            client.close()


ADDRESSES = (
    *("nonsense://x", "tls://127.0.0.1:1", "ucx://127.0.0.1:1", "inproc://x", "ws://127.0.0.1:1", "http://127.0.0.1:1", "tcp://", "://"),
    *("tcp://127.0.0.1", "tcp://127.0.0.1:1", "tcp://127.0.0.1:99999", "tcp://127.0.0.1:abc", "tcp://" + "x" * 300 + ":1", "x" * 300),
)
ANSWERS = {
    "nothing": b"",
    "one byte": b"\x01",
    "rubbish": np.random.default_rng(0).bytes(5000),
    "zeros": bytes(5000),
    "ones": b"\xff" * 5000,
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a frame of a terabyte": struct.pack("<QQ", 1, 2**40) + b"x" * 100,
    "no frames": struct.pack("<Q", 0),
}


@pytest.mark.parametrize("address", ADDRESSES, ids=[address[:30] for address in ADDRESSES])
def test_an_address_of_no_scheduler(address: str) -> None:
    pytest.importorskip("distributed")
    said = one_line("schedulers", "solve", "solve.yaml", "-q", "--set", "solve.decouple=class", "--scheduler", address)
    assert "cannot be used (" in said


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_server_that_is_no_scheduler(answer: str, scheme: str) -> None:
    pytest.importorskip("distributed")
    with server(ANSWERS[answer]) as place:
        said = one_line("schedulers", "solve", "solve.yaml", "-q", "--set", "solve.decouple=class", "--scheduler", f"{scheme}://{place}")
    assert "cannot be used (" in said
    assert "memory" not in said


@contextmanager
def full_disk() -> Iterator[None]:
    """No file takes more than a few bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FULL: dict[str, Callable[[str], list[str]]] = {
    **{name: write for name, write in WRITERS.items() if name not in ("--results-file", "--instances")},
    "--instances": lambda name: ["verify", "--instances", "i.csv", "-q", "--output", name],
    "decoupled": lambda name: ["solve", "solve.yaml", "-q", "--output", name, "--set", "solve.decouple=class", "--workers", "0"],
    "a path": lambda name: ["solve", "solve.yaml", "-q", "--output", name, "--path", "lambda=1:2:2"],
    "onnx": lambda name: ["compress", "compress.yaml", "-q", "--set", f"save={name.replace('.npz', '.onnx')}"],
    "safetensors": lambda name: ["compress", "compress.yaml", "-q", "--set", f"save={name.replace('.npz', '.safetensors')}"],
}


@pytest.mark.parametrize("name", sweep(FULL, every=3))
def test_a_full_disk(name: str, tmp_path: Path) -> None:
    """The file is named, the exit status is 1, and nothing is left but parts that are complete."""
    place = str(tmp_path / ("x.pt2" if name == "compress" else "x.npz"))
    with full_disk():
        said = one_line("full disk", *FULL[name](place), expected=1)
    assert f"`{tmp_path / 'x'}" in said
    assert "file too large" in said
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in left if name != "--instances"] == []


@pytest.mark.sweep
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["schema"], marked(["reach", "reach.yaml", "--json"])], ids=" ".join)
def test_standard_output_that_is_full(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "mipnet", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=240)
    SEEN["full disk", done.returncode] += 1
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("error")] == ["error: `standard output`: no space left on device"]
    assert "Exception" not in done.stderr


class Odd(Exception):
    """An error that nobody expects."""


@pytest.mark.parametrize("error", [Odd("two\nlines"), TypeError("'NoneType'"), KeyError("k"), RecursionError(), AssertionError(), Odd()])
def test_what_mipnet_does_not_expect(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(reach_run, "reach", fail)
    said = one_line("mistakes of mipnet", "reach", "reach.yaml", "-q", expected=1)
    (report,) = tmp_path.iterdir()
    assert f"please report it with the file `{report}`" in said
    assert type(error).__name__ in said
    text = report.read_text()
    assert "mipnet reach reach.yaml -q" in text
    assert "Traceback (most recent call last)" in text
    assert text.rstrip().endswith("k'" if isinstance(error, KeyError) else str(error) or type(error).__name__)


def test_a_report_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise Odd("odd")

    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    monkeypatch.setattr(commands, "find_task", fail)
    said = one_line("mistakes of mipnet", "schema", "solve", expected=1)
    assert "Odd: odd" in said
    assert "its traceback cannot be written" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the work of a command: as `mipnet.app.cli.endings` lets signals be raised."""

    def send(*_: object, **__: object) -> None:
        before = signal.signal(number, signal.default_int_handler)
        try:
            os.kill(os.getpid(), number)
        finally:
            signal.signal(number, before)

    monkeypatch.setattr(reach_run, "reach", send)
    assert "interrupted" in one_line("signals", "reach", "reach.yaml", "-q", expected=130)


def test_the_good_files_are_good() -> None:
    for name in FILES:
        task = next(line for line in FILES[name].splitlines() if line.startswith("task")).split()[1]
        assert main([TASKS_BY_NAME[task].command, f"{name}.yaml", "-q"]) == 0, name


def test_how_many_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    groups = sorted({group for group, _ in SEEN})
    with capsys.disabled():
        for group in groups:
            counts = ", ".join(f"{count} with exit status {status}" for (name, status), count in sorted(SEEN.items()) if name == group)
            print(f"\n{group}: {counts}", end="")
        print(f"\nin all {SEEN.total()} hostile inputs in this process")
    assert {status for _, status in SEEN} <= {1, 2, 130}
    assert sum(cases(test) for name, test in globals().items() if name.startswith("test_")) > 400


def cases(test: Callable[..., None]) -> int:
    """The number of cases of a test, in whatever process they run."""
    return math.prod(len(mark.args[1]) for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize")
