"""Affine values, and the formulations that write nonlinear layers as variables and rows.

Importing this package registers its formulations.
"""

from mipnet.formulations import maxpool as maxpool
from mipnet.formulations import relu as relu
from mipnet.formulations import relu_partition as relu_partition
