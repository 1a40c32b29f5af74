"""The layers that mipnet knows, one vertical slice a file: data, forward pass, interval rule, encoding."""

from mipnet.layers.activations import Clip, LeakyReLU, ReLU
from mipnet.layers.conv import Conv2d
from mipnet.layers.dense import Dense
from mipnet.layers.merge import Add, Concat
from mipnet.layers.norm import BatchNorm, Scale
from mipnet.layers.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from mipnet.layers.shape import Permute, Reshape
from mipnet.layers.window import Window

__all__ = [
    "AdaptiveAvgPool2d",
    "Add",
    "AvgPool2d",
    "BatchNorm",
    "Clip",
    "Concat",
    "Conv2d",
    "Dense",
    "LeakyReLU",
    "MaxPool2d",
    "Permute",
    "ReLU",
    "Reshape",
    "Scale",
    "Window",
]
