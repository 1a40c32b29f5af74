"""A `highspy.Highs` that prints nothing of its own accord."""

from __future__ import annotations

import highspy


class SilentHighs(highspy.Highs):  # type: ignore[misc]
    """HiGHS without output on the console; its log arrives as events.

    HiGHS 1.16 prints its name when `highspy.Highs` enables callbacks, in its constructor: before anybody can set an option.
    """

    def enableCallbacks(self) -> None:  # noqa: N802  (the name of highspy)
        """Turn the console off, then enable callbacks as highspy does."""
        self.setOptionValue("log_to_console", False)
        super().enableCallbacks()
