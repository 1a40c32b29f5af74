"""Programs rewritten for a solver without SOS1 sets, against every choice of the one member that is not zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mipnet.backend import get_backend
from mipnet.backend.rewrites import rewrite
from mipnet.testing.programs import program


@pytest.mark.parametrize("members", [2, 3])
def test_one_member_of_a_set_is_not_zero(members: int) -> None:
    """Members with negative lower ends, in the last place, too."""
    lower, upper, highs = np.array([-1.0, -3.0, -2.0])[:members], np.array([2.0, 1.0, 0.5])[:members], get_backend("highs")
    for cost in np.random.default_rng(0).normal(size=(8, members)):
        plain = replace(program(cost, lower=lower, upper=upper), sos1=(np.arange(members),))
        with highs.open(rewrite(plain, highs.features).program) as session:
            found = session.solve()
        assert found.objective == pytest.approx(min(0.0, *(cost * lower), *(cost * upper)))
        assert np.count_nonzero(np.abs(found.x[:members]) > 1e-9) <= 1
