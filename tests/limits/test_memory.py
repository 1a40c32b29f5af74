"""A memory limit refuses what would not fit before it is made, holds in its block alone, and is written as users write sizes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mipnet.errors import InputError, MemoryLimitReached, OutOfMemory
from mipnet.limits.memory import (
    FREE_MEMORY_SHARE,
    bytes_of,
    check_memory,
    current_limit,
    fits,
    making,
    memory_left,
    memory_limit,
    shown_bytes,
)
from tests.limits.room import readings, room


@pytest.mark.parametrize(
    ("given", "size"),
    [(2_000_000, 2e6), ("4 GB", 4e9), ("1.5gib", 1.5 * 2**30), ("500 MiB", 500 * 2**20), (" 20mb ", 2e7), ("3T", 3e12), ("2000000", 2e6)],
)
def test_sizes(given: float | str, size: float) -> None:
    assert bytes_of(given) == size


@pytest.mark.parametrize("given", ["4 gigs", "", "GB", "-4 GB", "4,5 GB", True, float("nan"), None, [4]])
def test_what_is_no_size_is_refused(given: object) -> None:
    with pytest.raises(InputError, match=r'expected a number of bytes, or a size such as "4 GB" or "500 MiB"'):
        bytes_of(given)  # type: ignore[arg-type]


def test_a_number_that_is_meant_in_another_unit_is_refused() -> None:
    with pytest.raises(InputError, match=r"the memory limit is 4, which is 4 bytes; expected .* of at least 1 MB"):
        bytes_of(4)


def test_sizes_in_words() -> None:
    assert [shown_bytes(size) for size in (7, 1500, 999_700, 5.12e9, 2e12, 3.2e16)] == [
        "7 B", "1.5 kB", "1 MB", "5.12 GB", "2 TB", "32,000 TB"
    ]  # fmt: skip


def test_a_limit_refuses_what_does_not_fit_with_all_figures() -> None:
    with room(50e6):
        check_memory("a small array", 50e6, "nothing")
        assert not fits(51e6)
        expected = (
            r"^the rows of 3 images would take about 1 GB; the memory limit is 1.05 GB, and 1 GB are in use:"
            r" give fewer, or raise `memory_limit`$"
        )
        with pytest.raises(MemoryLimitReached, match=expected):
            check_memory("the rows of 3 images", 1e9, "give fewer")


def test_a_limit_above_what_the_machine_has_free_allows_no_more_than_that() -> None:
    with readings(used=2e9, free=5e8), memory_limit("8 GB"):
        assert fits(5e8)
        expected = r"^the rows would take about 600 MB; the memory limit is 8 GB, and 500 MB are free: give fewer, or raise `memory_limit`$"
        with pytest.raises(MemoryLimitReached, match=expected):
            check_memory("the rows", 6e8, "give fewer")


def test_without_a_limit_a_share_of_the_free_memory_may_be_taken() -> None:
    with readings(used=2e9, free=5e8):
        assert memory_left() == FREE_MEMORY_SHARE * 5e8
        check_memory("an array", 4e8, "nothing")
        with pytest.raises(
            MemoryLimitReached, match=r"would take about 1,000,000 TB; 500 MB are free, of which mipnet takes 80% at most: give fewer, or"
        ):
            check_memory("everything", 1e18, "give fewer")
    with pytest.raises(MemoryLimitReached, match=r"; .* are free, of which mipnet takes 80% at most"):
        check_memory("everything", 1e18, "give fewer")


def test_a_limit_ends_with_its_block_and_never_grows_inside_of_another() -> None:
    with memory_limit("8 GB"):
        with memory_limit("9 GB"):
            assert current_limit() == 8e9
        with memory_limit(None):
            assert current_limit() == 8e9
        with pytest.raises(KeyError, match="2000000000"), memory_limit("2 GB"):
            raise KeyError(current_limit())
        assert current_limit() == 8e9
    assert current_limit() == float("inf")


def test_a_limit_is_that_of_one_thread() -> None:
    seen: list[float] = []
    with memory_limit("2 GB"):
        other = threading.Thread(target=lambda: seen.append(current_limit()))
        other.start()
        other.join()
    assert seen == [float("inf")]


def refused_by_numpy() -> object:
    return np.empty(2**56)


def refused_by_torch() -> object:
    return torch.empty(2**57, dtype=torch.float64)


@pytest.mark.parametrize("make", [refused_by_numpy, refused_by_torch])
def test_memory_that_ends_is_one_line_that_says_what_was_made(make: Callable[[], object]) -> None:
    said = r"^memory ended while mipnet made the rows of 3 images \(about 5 kB\); give fewer$"
    with pytest.raises(OutOfMemory, match=said), making("the rows of 3 images", 5000, "give fewer"):
        make()


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="another"), making("the rows", 5000, "give fewer"):
        raise RuntimeError("another")
