"""Bounds of all nodes of a network over an input set: with labels, with statistics per layer, and stored in files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr

from mipnet.arrays import Ints
from mipnet.bounds.fingerprint import network_hash, region_hash
from mipnet.bounds.interval import Interval
from mipnet.errors import DataError, InputError, NetworkError, suggest_keywords
from mipnet.limits.disk import check_writable, whole_file
from mipnet.network.gates import Gate
from mipnet.network.graph import INPUT_NODE, Network, dims_of
from mipnet.network.sets import Box

BOUNDS_FILE_FORMAT = "mipnet bounds 1"
"""The entry of a file that says it holds bounds, with the version of its layout."""


@dataclass(frozen=True)
class LayerBounds:
    """The number of units that an activation reads, how many of them may have either sign, and the mean width of their bounds.

    For the output of the network, signs have no meaning and ``unstable`` is None.
    """

    name: str
    units: int
    unstable: int | None
    width: float


@dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds of every node after its gate acts (`after`), and of nodes with a gate also before it acts (`ungated`).

    ``mode`` says for which scores they hold.  ``sound``: for every s in [0, 1].  ``paper``: for s = 1 only, as in the published method,
    which uses them as big-Ms of the gated network nevertheless.  ``method`` says how they were computed, ``region`` and ``gates`` for
    which input set and which gates they hold.  ``stopped`` is True if a time limit or Ctrl-C ended the computation: the bounds hold, and
    some are looser than ``method`` can give; ``interrupted`` is True if it was Ctrl-C.  ``simpler`` says which nodes have bounds of a
    simpler method, for want of memory or because CROWN would take too long.
    """

    network: Network
    region: Box
    after: Mapping[str, Interval]
    ungated: Mapping[str, Interval] = field(default_factory=dict)
    gates: tuple[Gate, ...] = ()
    mode: Literal["sound", "paper"] = "sound"
    method: str = "interval"
    stopped: bool = False
    simpler: tuple[str, ...] = ()
    interrupted: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """In which respects the bounds are looser than ``method`` can give; empty if they are not.  They hold in any case."""
        ended = "Ctrl-C came" if self.interrupted else "the time limit ended"
        text = f"{ended} before all bounds were computed: they hold, and some are looser than `{self.method}` gives"
        return (*self.simpler, *((text,) if self.stopped else ()))

    @suggest_keywords
    def before_gate(self, name: str) -> Interval:
        """Return the bounds of a node before its gate acts."""
        if name not in self.after:
            raise NetworkError(f"no bounds for `{name}`; the nodes are {', '.join(self.after)}")
        return self.ungated.get(name, self.after[name])

    def __getitem__(self, name: str) -> xr.Dataset:
        """Return ``lower`` and ``upper`` of a node before its gate acts, labelled with the node's dimensions."""
        box, dims = self.before_gate(name), ("sample", *dims_of(name, self.network.shape_of(name)))
        return xr.Dataset({"lower": (dims, box.lower.numpy()), "upper": (dims, box.upper.numpy())})

    def unstable(self) -> dict[str, int]:
        """Return, per activation, how many of its inputs may have either sign, summed over all samples."""
        counts = {}
        for node in self.network.nodes:
            if node.layer.activation:
                box = self.after[node.inputs[0]]
                counts[node.name] = int(((box.lower < 0) & (box.upper > 0)).sum())
        return counts

    def unstable_per_sample(self) -> Ints:
        """Return, per sample, how many inputs of all activations may have either sign."""
        boxes = [self.after[node.inputs[0]] for node in self.network.nodes if node.layer.activation]
        found = [((box.lower < 0) & (box.upper > 0)).flatten(1).sum(dim=1).numpy() for box in boxes]
        return np.sum(found, axis=0, dtype=np.int64) if found else np.zeros(self.region.samples, dtype=np.int64)

    def width(self) -> dict[str, float]:
        """Return, per node, the mean of upper - lower before its gate acts."""
        return {n.name: float(self.before_gate(n.name).width.mean()) for n in self.network.nodes}

    def layers(self) -> list[LayerBounds]:
        """Return statistics of the inputs of each activation, and of the output."""
        unstable = self.unstable()
        read = [(name, self.after[self.network[name].inputs[0]], count) for name, count in unstable.items()]
        output = self.network.output.name
        rows = [*read, (output, self.before_gate(output), None)]
        return [LayerBounds(name, box.lower.numel(), count, float(box.width.mean())) for name, box, count in rows]

    @suggest_keywords
    def check(self, network: Network, region: Box, gates: Sequence[Gate] = ()) -> None:
        """Raise `InputError` unless these bounds hold for that network over that set, with those gates."""
        if network is not self.network and network_hash(network) != network_hash(self.network):
            raise InputError("the bounds are those of another network; compute them for this one (`mipnet.propagate`)")
        if not region.within(self.region):
            raise InputError("the bounds hold on another input set, which does not contain this one; compute them for this one")
        missing = sorted({site for gate in gates for site in gate.sites} - {site for gate in self.gates for site in gate.sites})
        if missing:
            raise InputError(f"the bounds do not know of gates after {', '.join(missing)}; compute them with `gates`")

    @suggest_keywords
    def save(self, path: str | Path) -> None:
        """Write the bounds to an .npz file, with hashes of the network and the input set; `load_bounds` reads it.

        Raises `InputError` unless a file may be written there.
        """
        about = {
            "format": BOUNDS_FILE_FORMAT,
            "network": network_hash(self.network),
            "region": region_hash(self.region),
            "gates": _sites(self.gates),
            "mode": self.mode,
            "method": self.method,
            "stopped": self.stopped,
            "simpler": self.simpler,
        }
        arrays: dict[str, Any] = {"about": np.array(json.dumps(about))}
        for k, node in enumerate(self.network.nodes):
            box = self.before_gate(node.name)
            arrays |= {f"lower_{k}": box.lower.numpy(), f"upper_{k}": box.upper.numpy()}
        target = Path(path)
        check_writable(target)
        with whole_file(target, sum(array.nbytes for array in arrays.values())) as fresh, fresh.open("wb") as stream:
            np.savez_compressed(stream, **arrays)


@suggest_keywords
def load_bounds(path: str | Path, network: Network, region: Box, gates: Sequence[Gate] = ()) -> Bounds:
    """Read bounds from a file; raises `DataError` if they belong to another network, another input set or other gates."""
    region = region.fit(network.input_shape, network.input_names)
    about, boxes = _read(Path(path))
    known = {"network": network_hash(network), "region": region_hash(region), "gates": _sites(gates)}
    names = {"network": "another network", "region": "another input set", "gates": "other gates"}
    for key, value in known.items():
        if about.get(key) != value:
            raise DataError(f"`{path}` holds bounds of {names[key]}; compute them for this one")
    mode = about["mode"]
    sites = {site for gate in gates for site in gate.sites}
    found = {node.name: box for node, box in zip(network.nodes, boxes, strict=True)}
    after = {name: box.with_zero if mode == "sound" and name in sites else box for name, box in found.items()}
    source = Interval(torch.tensor(region.lower), torch.tensor(region.upper))
    ungated = {name: box for name, box in found.items() if name in sites}
    made = about["method"], bool(about.get("stopped")), tuple(map(str, about.get("simpler", ())))
    return Bounds(network, region, {INPUT_NODE: source, **after}, ungated, tuple(gates), mode, *made)


def _read(path: Path) -> tuple[dict[str, Any], list[Interval]]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            about = json.loads(str(data["about"]))
            count = (len(data.files) - 1) // 2
            boxes = [Interval(torch.tensor(data[f"lower_{k}"]), torch.tensor(data[f"upper_{k}"])) for k in range(count)]
    except FileNotFoundError:
        raise DataError(f"no file `{path}`; expected one that `Bounds.save` wrote") from None
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        about, boxes = {}, []
    if not isinstance(about, dict) or about.get("format") != BOUNDS_FILE_FORMAT:
        raise DataError(f"`{path}` is no file of bounds; expected one that `Bounds.save` wrote")
    return about, boxes


def _sites(gates: Sequence[Gate]) -> list[str]:
    return sorted(site for gate in gates for site in gate.sites)
