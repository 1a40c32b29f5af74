"""Free memory is the smallest of what the machine, every control group above the process and its own limits leave."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from mipnet.limits import free_memory

MEMINFO = "MemTotal: 32000 kB\nMemFree: 100 kB\nMemAvailable: 8000 kB\n"


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], groups: str = "", mount: str = "") -> None:
    """Describe a machine by files as those of Linux, in a folder, and let mipnet read them in place of the real ones."""
    given = {"proc/self/statm": "900 500 5 5 0 800 0", "proc/self/cgroup": groups, "proc/self/mountinfo": mount.format(folder)}
    for name, text in {"proc/meminfo": MEMINFO, **given, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(free_memory, "PROC_FOLDER", folder / "proc")


def test_without_groups_the_machine_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch, {})
    assert free_memory.free_memory() == 8000 * 1024


V2 = "36 25 0:31 / {0}/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = "36 25 0:31 / {0}/cgroup/memory rw - cgroup cgroup rw,memory\n"


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"a/b/memory.max": "5000000", "a/b/memory.current": "2000000"}, 3_000_000),
        ({"a/memory.max": "5000000", "a/memory.current": "2000000", "a/b/memory.max": "max", "a/b/memory.current": "1"}, 3_000_000),
        ({"a/b/memory.max": "5000000", "a/b/memory.current": "4000000", "a/b/memory.stat": "anon 1\ninactive_file 500000\n"}, 1_500_000),
        ({"a/b/memory.max": "5000000", "a/b/memory.current": "6000000"}, 0),
        ({"a/b/memory.max": "max", "a/b/memory.current": "6000000"}, 8000 * 1024),
    ],
    ids=["own group", "group above", "files in a cache", "over its limit", "no limit"],
)
def test_control_groups_of_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], left: int) -> None:
    machine(tmp_path, monkeypatch, {f"cgroup/{name}": text for name, text in {"a/b/cgroup.procs": "", **files}.items()}, "0::/a/b\n", V2)
    assert free_memory.free_memory() == left


def test_control_groups_of_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        "cgroup/memory/a/memory.limit_in_bytes": "5000000",
        "cgroup/memory/a/memory.usage_in_bytes": "2000000",
        "cgroup/memory/a/memory.stat": "cache 7\ntotal_inactive_file 250000\n",
        "cgroup/memory/a/b/memory.limit_in_bytes": "9223372036854771712",
    }
    machine(tmp_path, monkeypatch, files, "4:memory:/a/b\n1:cpu:/\n", V1)
    assert free_memory.free_memory() == 3_250_000


def test_a_container_sees_its_own_group_at_the_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the group lies outside of what is mounted: the mounted folder is the group itself."""
    files = {"cgroup/memory.max": "5000000", "cgroup/memory.current": "1000000"}
    machine(tmp_path, monkeypatch, files, "0::/system/box\n", "36 25 0:31 /system/box {0}/cgroup rw - cgroup2 cgroup2 rw\n")
    assert free_memory.free_memory() == 4_000_000
    machine(tmp_path, monkeypatch, files, "0::/../box\n", V2)
    assert free_memory.free_memory() == 4_000_000


def test_a_machine_that_says_nothing_has_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "PROC_FOLDER", tmp_path)
    monkeypatch.setattr(free_memory, "find_spec", lambda name: None)
    assert free_memory.free_memory() == math.inf
    assert free_memory.used_memory() == 0


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the address space is read from /proc")
def test_the_limit_of_the_address_space_counts() -> None:
    """In a process whose address space is limited, what is left of it is what is free, if the machine has more."""
    script = (
        "import resource; from mipnet.limits import free_memory as read\n"
        "read._available, read._left_in_groups = lambda: float('inf'), tuple\n"
        "resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9)); first = read.free_memory()\n"
        "block = bytearray(200_000_000); print(first, read.free_memory())"
    )
    first, second = map(float, subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split())
    assert 5e8 < first < 1e9
    assert 1.9e8 < first - second < 2.2e8


def test_used_memory_grows_with_what_is_made_and_a_watch_notices() -> None:
    """In a process that does nothing else: other tests free memory at any time, and the machine takes back pages of libraries."""
    script = (
        "from mipnet.limits.memory import MemoryWatch, memory_limit, used_memory\n"
        "before = used_memory()\n"
        "with memory_limit(before + 100e6): first, second = MemoryWatch(), MemoryWatch()\n"
        "early, block = first.reached(), b'x' * 300_000_000\n"
        "print(early, second.reached(), used_memory() - before)"
    )
    early, late, grown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert (early, late) == ("False", "True")
    assert 2e8 < float(grown) < 4e8
