"""How values flow between layers, and how nonlinear layers are written as variables and rows.

Importing the room registers its formulations.
"""

from mipnet.formulations import maxpool as maxpool
from mipnet.formulations import relu as relu
from mipnet.formulations import relu_partition as relu_partition
