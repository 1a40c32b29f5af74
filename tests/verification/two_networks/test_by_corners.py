"""Two networks by hand: sums of active units at the corners of a box, ties of classes, and what is allowed for rounding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import mipnet as mn
from mipnet.arrays import Csr
from mipnet.errors import MemoryLimitReached
from mipnet.limits.deadline import NO_DEADLINE
from mipnet.network.final_softmax import FinalSoftmax
from mipnet.solving.mip_settings import MipSettings
from mipnet.verification.certified_minimum import MinimumSettings
from mipnet.verification.two_networks.affine_forms import AffineForms
from mipnet.verification.two_networks.agreement import _search
from mipnet.verification.two_networks.compression import softmax_modules
from mipnet.verification.two_networks.folding import DenseChain
from mipnet.verification.two_networks.relu_stability import ReluStates, decide_states
from tests.limits.room import room

FIRST = [[1.0, 0.0, 0.0, 0.0], *np.eye(4).tolist()]
SECOND = [[0.0, 1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, -1.0], [1.0, 0.0, 0.0, 0.0, 0.0]]


def test_sums_of_active_units_are_right_at_every_corner():
    """Two layers, each with more active units than the next one has units, whose sums take their extremes at corners."""
    dense = [mn.Dense(FIRST, [-0.5, 2.0, 2.0, 2.0, 2.0]), mn.Dense(SECOND, [3.0, 3.0, -0.25]), mn.Dense([[-2.0, 1.0, 5.0]])]
    layers = [("a", dense[0]), ("r", mn.ReLU()), ("b", dense[1]), ("s", mn.ReLU()), ("c", dense[2])]
    found = mn.compress(mn.Network.build((4,), layers), mn.Box(np.zeros((1, 4)), np.ones((1, 4))))
    assert [each.kept for each in found.layers] == [4, 2]
    x = np.array(list(itertools.product((0.0, 0.6, 1.0), repeat=4)))
    bent = np.maximum(np.maximum(x[:, 0] - 0.5, 0.0) - 0.25, 0.0)
    exact = -2 * (x[:, 0] - x[:, 1] + 3) + (x[:, 2] - x[:, 3] + 3) + 5 * bent
    np.testing.assert_allclose(found.network.forward(x)[:, 0], exact, atol=1e-11)


def test_a_layer_whose_matrix_does_not_fit_is_refused():
    network = mn.Network.build((3000,), [("fc", mn.Dense(np.ones((1, 3000))))])
    with room(20e6), pytest.raises(MemoryLimitReached, match="the dense matrix of a layer with 3,000 inputs"):
        DenseChain.of(network)


def test_a_tie_of_two_classes_is_no_disagreement():
    tied = mn.Network.build((1,), [("fc", mn.Dense(np.ones((2, 1))))])
    assert mn.agree_on_class(tied, tied, mn.Box([[-1.0]], [[1.0]])).agree is True


def test_the_distance_of_equal_rows_allows_for_rounding():
    """A row whose terms are 1e8 may be computed with an error of some 1e-8."""
    forms = AffineForms(largest=np.ones(3))
    row = Csr(np.array([[1e8, -1e8, 1e8, 1.0]]))
    assert forms.nearest(row, row).distance[0] >= 3e8 * np.finfo(float).eps


def test_the_search_returns_the_input_with_the_largest_difference():
    """x and 0 differ most at 2; the other end of [-1, 2] is a start, too."""
    one, other = (mn.Network.build((1,), [("fc", mn.Dense([[factor]]))]) for factor in (1.0, 0.0))
    settings = MinimumSettings(MipSettings.of("highs"), NO_DEADLINE, 1e-6)
    assert _search(one, other, mn.Box([[-1.0]], [[2.0]]), settings).tolist() == [[2.0]]


def test_the_program_alone_decides_states():
    """Over [-1, 1]: d and e are a tent with its top of 0.25 at 0.25, less a little less than 0.25 and less 0.35.  Only e is never on."""
    first = mn.Dense([[1.0], [-1.0], [1.0]], [0.0, -0.9, -0.25])
    second = mn.Dense([[1.0, 0.0, -2.0], [1.0, 0.0, -2.0]], [1e-9 - 0.25, -0.35])
    layers = [("a", first), ("r", mn.ReLU()), ("b", second), ("s", mn.ReLU()), ("c", mn.Dense(np.ones((1, 2))))]
    network, box = mn.Network.build((1,), layers), mn.Box([[-1.0]], [[1.0]])
    states = ReluStates.of(network, mn.propagate(network, box, method="interval"))
    assert states.open.all()
    decide_states(states, MipSettings.of("highs"), NO_DEADLINE)
    assert states.complete
    assert states.never_on.tolist() == [False, False, False, False, True]
    assert not states.never_off.any()
    assert states.rounds > 0
    assert states.nodes >= 0


def test_a_softmax_over_all_axes_is_one_of_torch():
    modules = nn.Sequential(*(part for _, part in softmax_modules(FinalSoftmax("softmax", (0, 1)), (2, 3))))
    x = torch.randn(4, 2, 3)
    torch.testing.assert_close(modules(x), torch.softmax(x.flatten(1), 1).reshape(4, 2, 3))


def test_layers_with_other_slopes_are_not_shared():
    """Over [-1, 2] they differ by 0.1 at -1."""
    one, other = (mn.Network.build((1,), [("a", mn.Dense([[1.0]])), ("r", mn.LeakyReLU(slope))]) for slope in (0.1, 0.2))
    found = mn.agree(one, other, mn.Box([[-1.0]], [[2.0]]))
    assert 0.1 <= found.bound <= 0.1 + 1e-4
    assert found.largest == pytest.approx(0.1)
