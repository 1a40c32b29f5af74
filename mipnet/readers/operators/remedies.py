"""What to do about an operator that cannot be read."""

from __future__ import annotations

SMOOTH_ACTIVATIONS = {"gelu", "silu", "swish", "elu", "celu", "selu", "mish", "softplus", "hardswish", "erf", "softsign", "log_sigmoid"}
"""Activations that are not piecewise linear."""

SMOOTH_FUNCTIONS = {"exp", "log", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tan", "atan", "pow", "square", "log1p", "expm1", "glu"}
"""Other functions that are not piecewise linear."""

NORM_OPERATORS = {f"{kind}_norm" for kind in ("layer", "native_layer", "group", "native_group", "instance", "rms", "local_response")}
NORM_OPERATORS |= {"layernormalization", "groupnormalization", "instancenormalization", "lrn", "lpnormalization", "std", "var"}
"""Operators that divide by a number computed from each sample."""

PLACE_OPERATORS = ("argmax", "argmin", "topk", "sort", "argsort", "nonzero", "nonmaxsuppression", "unique", "bucketize")
"""Operators whose results are places or orders."""

JUMPING_OPERATORS = ("greater", "gt", "less", "lt", "ge", "le", "eq", "ne", "equal", "greaterorequal", "lessorequal", "where", "sign")
ROUNDING_OPERATORS = ("floor", "ceil", "round", "trunc", "fmod", "remainder", "mod")
"""Operators whose results jump."""

RECURRENT_OPERATORS = ("lstm", "gru", "rnn", "rnn_tanh", "rnn_relu")
"""Recurrent layers."""


def remedy(name: str) -> str:
    """Return what to do about an operator that is not read, by its name in torch (`gelu`) or ONNX (`Gelu`)."""
    known = str(name).lower().strip("_")
    if known in ("sigmoid", "tanh"):
        limits = "`nn.Hardsigmoid`" if known == "sigmoid" else "`nn.Hardtanh`"
        return f"it is not piecewise linear; replace it by {limits} or ReLU, or drop it if it is the last operation"
    if known in SMOOTH_ACTIVATIONS:
        return "it is not piecewise linear; replace it by ReLU and train the network on"
    if known in SMOOTH_FUNCTIONS:
        return "it is not piecewise linear; compute it outside of the network, or drop it if it is the last operation"
    if known in ("softmax", "log_softmax", "logsoftmax", "scaled_dot_product_attention", "attention", "multiheadattention"):
        return "it multiplies or divides values of the network; a softmax is read as the last operation only"
    if known in NORM_OPERATORS:
        return "it divides by a number computed from each sample; replace it by a batch norm"
    if known in PLACE_OPERATORS:
        return "its result is a place or an order; drop it, and ask about the outputs that it compares"
    if known in (*JUMPING_OPERATORS, *ROUNDING_OPERATORS):
        return "its result jumps; replace it by a ReLU, a maximum or a clip, or drop it if it is the last operation"
    if known in RECURRENT_OPERATORS:
        return "it multiplies values of the network; replace it by convolutions or by a dense layer over all steps"
    if known in ("bernoulli", "rand", "rand_like", "randn", "randn_like", "randomnormallike", "multinomial"):
        return "it draws at random; export the network in eval mode"
    return "mipnet has no layer for it; replace it by operators that are read"


def refusal(where: str, name: str) -> str:
    """Return the message for an operator at a place that is not read."""
    return f"{where} cannot be read: {remedy(name)} (`mipnet inspect --operators` lists them)"
