"""The layers of mipnet.  Each module contains a layer's parameters, forward pass, bound rules and encoding."""

from mipnet.layers.activations import Clip, LeakyReLU, PReLU, ReLU
from mipnet.layers.axis_dense import AxisDense
from mipnet.layers.conv import Conv2d
from mipnet.layers.conv3d import Conv3d
from mipnet.layers.conv_transpose import ConvTranspose2d
from mipnet.layers.dense import Dense
from mipnet.layers.gather import Gather
from mipnet.layers.maximum import Maximum
from mipnet.layers.merge import Add, Concat
from mipnet.layers.norm import BatchNorm, Scale
from mipnet.layers.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from mipnet.layers.shape import Permute, Reshape, Select
from mipnet.layers.sparse_map import SparseMap
from mipnet.layers.tree_rows import encode_trees as encode_trees
from mipnet.layers.trees import TreeEnsemble
from mipnet.layers.window import Window

__all__ = [
    "AdaptiveAvgPool2d",
    "Add",
    "AvgPool2d",
    "AxisDense",
    "BatchNorm",
    "Clip",
    "Concat",
    "Conv2d",
    "Conv3d",
    "ConvTranspose2d",
    "Dense",
    "Gather",
    "LeakyReLU",
    "MaxPool2d",
    "Maximum",
    "PReLU",
    "Permute",
    "ReLU",
    "Reshape",
    "Scale",
    "Select",
    "SparseMap",
    "TreeEnsemble",
    "Window",
]
