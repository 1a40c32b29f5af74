"""The layers of mipnet.  Each module contains a layer's parameters, forward pass, bound rules and encoding."""

from mipnet.layers.activations import Clip, LeakyReLU, ReLU
from mipnet.layers.conv import Conv2d
from mipnet.layers.dense import Dense
from mipnet.layers.merge import Add, Concat
from mipnet.layers.norm import BatchNorm, Scale
from mipnet.layers.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from mipnet.layers.shape import Permute, Reshape, Select
from mipnet.layers.tree_rows import encode_trees as encode_trees
from mipnet.layers.trees import TreeEnsemble
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
    "Select",
    "TreeEnsemble",
    "Window",
]
