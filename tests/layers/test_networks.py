"""The networks of `tests/nets.py` that `make test` runs contain every type of layer."""

from __future__ import annotations

import mipnet as mn
from tests.nets import FEW_SEEDS, make


def test_every_type_of_layer_occurs_in_the_few_networks() -> None:
    networks = [make(family, seed)[0] for family, seeds in FEW_SEEDS.items() for seed in seeds]
    found = {type(node.layer) for network in networks for node in network.nodes}
    types = {each for each in (getattr(mn, name) for name in mn.__all__) if isinstance(each, type) and issubclass(each, mn.Layer)}
    types -= {mn.Layer, mn.Select, mn.TreeEnsemble}  # tests/layers/test_trees.py
    assert types <= found, sorted(each.__name__ for each in types - found)
