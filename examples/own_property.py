"""A property of your own: can two pixels of a digit, changed freely, make the network read it as another one?"""

from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from torch import nn

import mipnet as mn

HERE = Path(__file__).parent


def digits_network():
    """The trained 64-50-20-10 network of this folder."""
    module = nn.Sequential()
    for name, layer in (
        ("fc1", nn.Linear(64, 50)),
        ("relu1", nn.ReLU()),
        ("fc2", nn.Linear(50, 20)),
        ("relu2", nn.ReLU()),
        ("fc3", nn.Linear(20, 10)),
    ):
        module.add_module(name, layer)
    module.load_state_dict(load_file(HERE / "digits.safetensors"))
    return mn.from_torch(module, np.zeros((1, 64)))


def largest_margin(net, image, label, other, free_pixels):
    """The largest margin ``y[other] - y[label]`` if any ``free_pixels`` pixels take any value in [0, 1], and the image that attains it."""
    encoding = mn.encode(net, mn.Box(np.zeros((1, 64)), np.ones((1, 64))))
    model, x, y = encoding.model, encoding.model.variables["input"], encoding.output
    moved = model.add_variables(binary=True, coords=x.coords, name="moved")
    start = encoding.labelled(image[None], x.dims)
    model.add_constraints(x - moved, "<=", start, name="only_moved_rise")
    model.add_constraints(x + moved, ">=", start, name="only_moved_fall")
    model.add_constraints(moved.sum(), "<=", free_pixels, name="budget")
    model.add_objective((y.sel(fc3_unit=other, drop=True) - y.sel(fc3_unit=label, drop=True)).sum(), sense="max")
    return mn.solve(encoding, time_limit=60)


if __name__ == "__main__":
    net = digits_network()
    data = mn.load("digits", split="test")
    image, label = data.images[0], int(data.labels[0])
    runner_up = int(np.argsort(net.forward(image[None])[0])[-2])
    result = largest_margin(net, image, label, runner_up, free_pixels=2)
    pixels = np.flatnonzero(np.abs(result.x["input"].values[0] - image) > 1e-6)
    print(f"digit {label}: with two free pixels the margin of {runner_up} is at most {result.bound:.4f}")
    print(f"attained {result.objective:.4f} at pixels {pixels.tolist()}")
    print(f"{result.status.value}, verified: {result.verified}")
