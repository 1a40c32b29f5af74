"""`check_layer`: tests of a layer's shape, bounds, linear map and formulations against its own forward pass in torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mipnet.arrays import Array, Shape
from mipnet.backend import Backend, Status
from mipnet.bounds.interval import Interval, interval
from mipnet.bounds.linear_rules import backward, has_backward, is_elementwise, is_exact, lines
from mipnet.errors import InputError, shown, suggest_keywords
from mipnet.errors.argument_kinds import SHARED_KINDS
from mipnet.formulations.registry import formulations, is_affine, linear_map
from mipnet.layers import Dense, Reshape
from mipnet.model.encode import encode
from mipnet.model.to_program import from_model
from mipnet.network.graph import INPUT_NODE, Layer, Network, size
from mipnet.network.sets import Box
from mipnet.solving.open_problem import open_problem
from mipnet.testing.assertions import expect

LayerCheck = tuple[str, Callable[[], None]]


@suggest_keywords
def layer_checks(layer: Layer, *shapes: Shape, backend: str | Backend = "highs", reach: float = 2.0, seed: int = 0) -> list[LayerCheck]:
    """Return named checks of a layer for inputs of these shapes with entries in ``[-reach, reach]``; each may raise `AssertionError`."""
    if not shapes:
        raise InputError(f"`{layer.label}` is checked without an input shape; expected {SHARED_KINDS['Shape'].one}, for each input")
    for shape in shapes:
        if not SHARED_KINDS["Shape"].holds(shape):
            raise InputError(f"`{layer.label}` is checked with the input shape {shown(shape)}; expected {SHARED_KINDS['Shape'].one}")
    case = _Case(layer, shapes, backend, reach, seed)
    checks: list[LayerCheck] = [("shape", case.shape), ("interval", case.interval)]
    if has_backward(layer):
        checks.append(("backward rule", case.backward))
    if is_affine(layer):
        return [*checks, ("linear map", case.linear)]
    for name, registered in formulations(type(layer)).items():
        checks.append((f"forward pass feasible ({name})", partial(case.feasible, name)))
        promise = "optimum never beaten" if registered.relaxed else "optimum attained and never beaten"
        checks.append((f"{promise} ({name})", partial(case.optimum, name)))
    return checks


@suggest_keywords
def check_layer(layer: Layer, *shapes: Shape, backend: str | Backend = "highs", reach: float = 2.0, seed: int = 0) -> None:
    """Run `layer_checks`; raises `AssertionError` for the first check that fails."""
    checks = layer_checks(layer, *shapes, backend=backend, reach=reach, seed=seed)
    known = is_affine(layer) or formulations(type(layer))
    expect(bool(known), f"`{layer.label}` has a rule in `linear_map` or at least one encoding")
    for _, check in checks:
        check()


class _Case:
    """A layer with its input shapes and a generator of random inputs."""

    def __init__(self, layer: Layer, shapes: tuple[Shape, ...], backend: str | Backend, reach: float, seed: int) -> None:
        self.layer, self.shapes, self.backend, self.reach = layer, shapes, backend, reach
        self.generator = np.random.default_rng(seed)

    def inputs(self, count: int) -> list[Tensor]:
        return [torch.tensor(self.generator.uniform(-self.reach, self.reach, (count, *shape))) for shape in self.shapes]

    def shape(self) -> None:
        stated, real = self.layer.shape(*self.shapes), tuple(self.layer.forward(*self.inputs(2)).shape)
        expect(real == (2, *stated), f"`shape` says {stated} for one sample, `forward` of two samples gives {real}")

    def boxes(self) -> list[Interval]:
        ends = [(a, b) for a, b in zip(self.inputs(1), self.inputs(1), strict=True)]
        return [Interval(torch.minimum(a, b), torch.maximum(a, b)) for a, b in ends]

    def inside(self, boxes: list[Interval], count: int) -> list[Tensor]:
        """Return points of the boxes, with some coordinates at an end."""
        shares = (self.generator.uniform(-0.3, 1.3, (count, *box.lower.shape[1:])).clip(0, 1) for box in boxes)
        return [box.lower + torch.tensor(share) * box.width for box, share in zip(boxes, shares, strict=True)]

    def interval(self) -> None:
        boxes = self.boxes()
        out = interval(self.layer, *boxes)
        for _ in range(200):
            y = self.layer.forward(*self.inside(boxes, 1))
            inside = bool((y >= out.lower - 1e-9).all() and (y <= out.upper + 1e-9).all())
            expect(inside, f"the interval rule of `{self.layer.label}` contains every output")

    def backward(self) -> None:
        for _ in range(20):
            boxes = self.boxes()
            x = self.inside(boxes, 50)
            rows = torch.tensor(self.generator.normal(size=(4, *self.layer.shape(*self.shapes))))
            value = self.layer.forward(*x).flatten(1) @ rows.flatten(1).T
            parts, shift = backward(self.layer, rows, *boxes)
            bound = shift + sum(v.flatten(1) @ a.flatten(1).T for v, a in zip(x, parts, strict=True))
            expect(bool((value >= bound - 1e-9).all()), f"the backward rule of `{self.layer.label}` bounds every output from below")
            if is_exact(self.layer):
                expect(
                    torch.allclose(value, bound), f"the backward rule of `{self.layer.label}` is marked as exact, and its bound is attained"
                )
            if is_elementwise(self.layer):
                self.lines(boxes[0], x[0])

    def lines(self, box: Interval, x: Tensor) -> None:
        y = self.layer.forward(x)
        for choice in (torch.zeros_like(x), torch.ones_like(x), torch.tensor(self.generator.uniform(size=x.shape))):
            found = lines(self.layer, box, choice)
            below, above = found.lower_slope * x + found.lower_shift, found.upper_slope * x + found.upper_shift
            expect(bool(((below <= y + 1e-9) & (y <= above + 1e-9)).all()), f"the lines of `{self.layer.label}` enclose it at every choice")

    def linear(self) -> None:
        x = self.inputs(3)
        maps = linear_map(self.layer, *self.shapes)
        zero = self.layer.forward(*(torch.zeros_like(v) for v in x)).reshape(3, -1).numpy()
        total = zero + sum((m @ v.reshape(3, -1).numpy().T).T for m, v in zip(maps, x, strict=True))
        off = float(np.abs(total - self.layer.forward(*x).reshape(3, -1).numpy()).max())
        expect(off < 1e-9, f"`linear_map` of `{self.layer.label}` is its forward pass without the constant; off by {off:.1e}")

    def network(self, weight: Array | None = None) -> Network:
        """Return a network in which the layer follows dense layers that compute its inputs from one vector.

        They select the inputs, or multiply by ``weight``, of shape ``(all inputs of the layer, inputs of the network)``.
        """
        sizes = [size(s) for s in self.shapes]
        weight = np.eye(sum(sizes)) if weight is None else weight
        rows = np.split(weight, np.cumsum(sizes)[:-1])
        parts = [(f"part{i}", Dense(torch.tensor(row)), (INPUT_NODE,)) for i, row in enumerate(rows)]
        shaped = [(f"shaped{i}", Reshape(s), (f"part{i}",)) for i, s in enumerate(self.shapes)]
        return Network.build((weight.shape[1],), [*parts, *shaped, ("layer", self.layer, tuple(name for name, _, _ in shaped))])

    def feasible(self, name: str) -> None:
        network, x = self.network(), self.flat_inputs(4)
        encoding = encode(network, Box(x - 1, x + 1), formulation={type(self.layer).__name__.lower(): name})
        program = from_model(encoding.model)
        for _ in range(10):
            at = self.generator.uniform(x - 1, x + 1)
            point = encoding.point(at)
            expect(program.violation(point[program.labels]) < 1e-7, f"a forward pass satisfies every row of `{self.layer.label}` ({name})")
            off = float(np.abs(encoding.value("layer", point) - network.forward(at)).max())
            expect(off < 1e-7, f"the encoded value of `{self.layer.label}` ({name}) is its forward pass; off by {off:.1e}")

    def optimum(self, name: str) -> None:
        """Compare the smallest and the largest value of a linear function of the output with samples.

        All inputs of the layer are linear functions of two numbers, each with range ``[-reach, reach]``.  If they were independent, the
        optimum of a monotone function would lie at a corner of their box, where many relaxations are exact.
        """
        weight = self.generator.normal(size=(sum(map(size, self.shapes)), 2))
        network = self.network(weight * self.reach / np.abs(weight).sum(axis=1, keepdims=True))
        region = Box(-np.ones((1, 2)), np.ones((1, 2)))
        tried = network.forward(self.generator.uniform(-1.0, 1.0, (2000, 2))).reshape(2000, -1)
        weights = self.generator.normal(size=(1, *network.output_shape))
        encoding = encode(network, region, formulation={type(self.layer).__name__.lower(): name})
        value = (encoding.output * encoding.labelled(weights, ("sample", *network.output.dims))).sum()
        with open_problem(encoding, self.backend) as opened:
            for sign in (1.0, -1.0):
                opened.set_objective(sign * value, sense="min")
                result = opened.solve(start="none", time_limit=60)
                exact = result.status is Status.OPTIMAL and result.verified
                expect(exact or bool(encoding.relaxed), f"`{self.layer.label}` ({name}) solves and replays: {result.status.value}")
                best = sign * float((sign * (tried @ weights.reshape(-1))).min())
                bound = sign * result.bound
                expect(
                    sign * bound <= sign * best + 1e-6, f"no input beats the bound of `{self.layer.label}` ({name}): {best} against {bound}"
                )

    def flat_inputs(self, count: int) -> Array:
        flat: Array = np.concatenate([v.reshape(count, -1).numpy() for v in self.inputs(count)], axis=1)
        return flat
