"""How much memory this process uses, and how much it may still take: of the machine, of its control groups, of its own limits."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

PROC_FOLDER = Path("/proc")
"""The folder in which Linux describes processes and memory."""

CGROUP_BYTES_MAX = 2**60
"""A limit of a control group of at least this means that there is none."""


def used_memory() -> int:
    """Return the bytes of memory that this process holds now (its resident set); 0 if the system does not say."""
    try:
        return int((PROC_FOLDER / "self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return _of_psutil("used")


def free_memory() -> float:
    """Return the bytes that this process may still take before the machine or one of its limits refuses; infinite if nothing says.

    It is the smallest of: the memory of the machine that is available, what is left in the control group of the process and in each
    group above it (versions 1 and 2), and what the limits of its address space leave (``ulimit -v`` and ``-d``).
    """
    return max(0.0, min([_available(), *_left_in_groups(), *_left_in_address_space()], default=math.inf))


def _available() -> float:
    """Return what the machine has, without what could be had back from caches only by swapping."""
    try:
        lines = (PROC_FOLDER / "meminfo").read_text().splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return _of_psutil("available") or math.inf


def _of_psutil(wanted: str) -> int:
    """Return a figure of the package psutil, which systems without /proc need; 0 if it is not installed."""
    if find_spec("psutil") is None:
        return 0
    psutil = import_module("psutil")
    return int(psutil.Process().memory_info().rss if wanted == "used" else psutil.virtual_memory().available)


def _left_in_groups() -> Iterator[float]:
    """Yield what is left in each control group that limits this process: its own ones, and all above them."""
    for root, group in _memory_groups():
        folder = root / group.lstrip("/")
        for each in (folder, *folder.parents):
            if each == root.parent:
                break
            limit = min(_number(each / "memory.max"), _number(each / "memory.limit_in_bytes"))
            if limit < CGROUP_BYTES_MAX:
                used = min(_number(each / "memory.current"), _number(each / "memory.usage_in_bytes"))
                yield limit - (used - _reclaimable(each) if math.isfinite(used) else 0.0)


def _memory_groups() -> Iterator[tuple[Path, str]]:
    """Yield where each hierarchy of control groups with memory is mounted, and the group of this process in it.

    In a container, the mounted folder is often that of the group itself, and the path that the system names lies outside of it; then only
    the mounted folder counts.
    """
    try:
        groups = [line.split(":", 2) for line in (PROC_FOLDER / "self/cgroup").read_text().splitlines()]
        mounts = [line.split(" - ") for line in (PROC_FOLDER / "self/mountinfo").read_text().splitlines()]
    except OSError:
        return
    for mount in mounts:
        if len(mount) != 2 or not mount[1].startswith("cgroup"):
            continue
        before, (kind, _, options) = mount[0].split(), (*mount[1].split(), "", "")[:3]
        root, place = before[3], Path(before[4])
        for _, controllers, group in groups:
            named = "memory" in controllers.split(",") and "memory" in options.split(",")
            if (kind == "cgroup" and named) or (kind == "cgroup2" and not controllers):
                inside = group.removeprefix(root) if root != "/" and group.startswith(root) else group if root == "/" else ""
                yield place, inside if (place / inside.lstrip("/")).is_dir() else ""


def _number(path: Path) -> float:
    """Return the number in a file; infinite if there is none, or if it says ``max``."""
    try:
        return float(path.read_text().strip().replace("max", "inf"))
    except (OSError, ValueError):
        return math.inf


def _reclaimable(group: Path) -> float:
    """Return the bytes of files that a group holds only as a cache."""
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return float(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return 0.0


def _left_in_address_space() -> Iterator[float]:
    """Yield what the limits of the address space and of its data leave."""
    try:
        import resource

        pages = [int(each) for each in (PROC_FOLDER / "self/statm").read_text().split()]
    except (ImportError, OSError, ValueError):
        return
    for kind, used in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit - float(used * resource.getpagesize())
