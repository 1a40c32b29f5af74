"""Settings of all tests."""

from __future__ import annotations

import random
import signal
import sys
import zlib
from typing import Any

import numpy as np
import pytest

SECONDS_AFTER_INTERRUPT = 240.0
"""Time for what follows Ctrl-C: many times what it takes on a busy machine, so that no result depends on how busy it is."""


def pytest_configure() -> None:
    """Make Ctrl-C raise `KeyboardInterrupt`, also where the tests run in the background of a shell, which lets processes ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _time_after_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mipnet.app.runs.holdout_accuracy.SECONDS_AFTER_INTERRUPT", SECONDS_AFTER_INTERRUPT)
    monkeypatch.setattr("mipnet.verification.two_networks.compression.INTERRUPTED_CHECK_SECONDS", SECONDS_AFTER_INTERRUPT)


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
def pytest_runtest_call(item: pytest.Item) -> None:
    draw_the_same_numbers(item.nodeid)
