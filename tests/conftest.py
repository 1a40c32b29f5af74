"""Settings of all tests."""

from __future__ import annotations

import gc
import random
import signal
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

WAITING_SECONDS = 240.0
"""Time for what follows Ctrl-C, and for a scheduler to answer: so much that no result depends on how busy the machine is."""

PATIENCE = (
    "mipnet.app.runs.holdout_accuracy.SECONDS_AFTER_INTERRUPT",
    "mipnet.verification.two_networks.compression.INTERRUPTED_CHECK_SECONDS",
    "mipnet.solving.dask_client.SCHEDULER_SECONDS_MAX",
)
"""Constants of mipnet that are `WAITING_SECONDS` in tests."""

TERMINAL_VARIABLES = ("LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""Variables that change what is drawn."""


def pytest_configure() -> None:
    """Let Ctrl-C and a closed terminal act as usual, also in the background of a shell and under nohup, where processes ignore them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _surroundings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same screen, variables and patience, whatever shell the tests are started from, and however busy the machine is."""
    monkeypatch.setenv("COLUMNS", "80")
    for name in TERMINAL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if request.node.get_closest_marker("bench") is None:
        monkeypatch.delenv("MIPNET_DATA", raising=False)
    for constant in PATIENCE:
        monkeypatch.setattr(constant, WAITING_SECONDS)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Collect no garbage while tests are collected, which would take almost half of the time, and nothing of this later: it stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def draw_the_same_numbers(place: str) -> None:
    """Begin the global generators anew: what a module, a fixture or a test draws depends on its name, and on nothing that ran before."""
    seed = zlib.crc32(place.encode())
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - that of the libraries
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.manual_seed(seed)


@pytest.hookimpl(tryfirst=True)
def pytest_collectstart(collector: pytest.Collector) -> None:
    draw_the_same_numbers(collector.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: Any, request: pytest.FixtureRequest) -> None:
    draw_the_same_numbers(f"{fixturedef.argname} of {request.node.nodeid}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let torch compute gradients again if a test was ended by its limit of time inside of `torch.no_grad`: one failure, not a hundred."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_grad_enabled(True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    draw_the_same_numbers(item.nodeid)
