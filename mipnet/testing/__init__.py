"""Public conformance tests: `check_backend` for a solver plug-in, `check_layer` for a layer of your own."""

from mipnet.testing.backends import backend_checks, check_backend
from mipnet.testing.layers import check_layer, layer_checks

__all__ = ["backend_checks", "check_backend", "check_layer", "layer_checks"]
