"""Settings of all tests."""

from __future__ import annotations

import signal

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
