"""Ordinary torch modules, small: blocks of vision networks, autoencoders, time series, tabular data, sets, and single operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Make = Callable[[], nn.Module]
VEC, SEQ, IMG, VOL, TOK = (6,), (2, 8), (2, 8, 8), (1, 4, 4, 4), (4, 6)


class Fn(nn.Module):
    """A module with parts by name and a forward given as a function of itself and the input."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            setattr(self, name, part) if isinstance(part, nn.Module) else self.register_buffer(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def fn(forward: Callable[[Any, Tensor], Tensor], **parts: Callable[[], Any]) -> Make:
    return lambda: Fn(forward, **{name: part() for name, part in parts.items()})


def seq(*parts: Callable[[], nn.Module]) -> Make:
    return lambda: nn.Sequential(*(part() for part in parts))


def mod(kind: type[nn.Module], *args: Any, **given: Any) -> Make:
    return lambda: kind(*args, **given)


def buffer(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


FC, CONV, CONV1, BN, UP = nn.Linear, nn.Conv2d, nn.Conv1d, nn.BatchNorm2d, nn.ConvTranspose2d


def basic_block(stride: int = 1) -> Make:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.bn2(m.conv2(F.relu(m.bn1(m.conv1(x)))))
        return F.relu(y + m.down(x))

    down = mod(CONV, 2, 4, 1, stride=stride)
    return fn(
        forward,
        conv1=mod(CONV, 2, 4, 3, stride=stride, padding=1, bias=False),
        bn1=mod(BN, 4),
        conv2=mod(CONV, 4, 4, 3, padding=1, bias=False),
        bn2=mod(BN, 4),
        down=down,
    )


def inverted_residual() -> Make:
    return fn(
        lambda m, x: x + m.project(F.relu6(m.depth(F.relu6(m.expand(x))))),
        expand=seq(mod(CONV, 2, 6, 1), mod(BN, 6)),
        depth=seq(mod(CONV, 6, 6, 3, padding=1, groups=6), mod(BN, 6)),
        project=seq(mod(CONV, 6, 2, 1), mod(BN, 2)),
    )


def u_net(up: Make) -> Make:
    def forward(m: Any, x: Tensor) -> Tensor:
        a = F.relu(m.down1(x))
        b = F.relu(m.down2(F.max_pool2d(a, 2)))
        return m.out(F.relu(m.up1(torch.cat([a, m.up(b)], 1))))

    return fn(
        forward,
        down1=mod(CONV, 2, 3, 3, padding=1),
        down2=mod(CONV, 3, 4, 3, padding=1),
        up=up,
        up1=mod(CONV, 7, 3, 3, padding=1),
        out=mod(CONV, 3, 1, 1),
    )


def mixer(m: Any, x: Tensor) -> Tensor:
    x = x + m.tok2(F.relu(m.tok1(x.transpose(1, 2)))).transpose(1, 2)
    return m.head((x + m.ch2(F.relu(m.ch1(x)))).mean(1))


def temporal_block(m: Any, x: Tensor) -> Tensor:
    y = F.relu(m.c1(F.pad(x, (2, 0))))
    return F.relu(m.c2(F.pad(y, (4, 0)))[..., : x.shape[-1]] + m.down(x))


def n_beats(m: Any, x: Tensor) -> Tensor:
    total = 0
    for block in (m.b1, m.b2):
        theta = block(x)
        x = x - theta[:, :6]
        total = total + theta[:, 6:]
    return total


def decomposition(m: Any, x: Tensor) -> Tensor:
    trend = F.avg_pool1d(F.pad(x, (1, 1), mode="replicate"), 3, 1)
    return m.season(x - trend) + m.trend(trend)


def dense_block(m: Any, x: Tensor) -> Tensor:
    a = F.relu(m.c1(x))
    b = F.relu(m.c2(torch.cat([x, a], 1)))
    return torch.cat([x, a, b], 1)


def shuffle_unit(m: Any, x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    y = torch.cat([a, F.relu(m.conv(b))], 1)
    return y.view(-1, 2, 1, 8, 8).transpose(1, 2).reshape(-1, 2, 8, 8)


def feature_pyramid(m: Any, x: Tensor) -> Tensor:
    low = F.relu(m.c1(x))
    high = F.relu(m.c2(low))
    return m.out(m.lateral(low) + F.interpolate(m.top(high), scale_factor=2, mode="nearest"))


def spatial_pyramid(m: Any, x: Tensor) -> Tensor:
    return torch.cat([F.adaptive_avg_pool2d(x, n).flatten(1) for n in (1, 2, 4)], 1)


def maxout(m: Any, x: Tensor) -> Tensor:
    return m.fc(x).view(-1, 5, 2).amax(-1)


def set_maximum(m: Any, x: Tensor) -> Tensor:
    return m.rho(F.relu(m.phi(x)).max(dim=1).values)


def highway_free(m: Any, x: Tensor) -> Tensor:
    return torch.where(m.mask > 0, F.relu(m.fc(x)), x)


def gated_by_constant(m: Any, x: Tensor) -> Tensor:
    return m.fc(x).masked_fill(m.mask > 0, 0.5)


def assigned(m: Any, x: Tensor) -> Tensor:
    y = m.fc(x)
    y[:, 0] = 1.0
    y[:, 2:4] = x[:, :2]
    return y


def patches(m: Any, x: Tensor) -> Tensor:
    return m.head(F.relu(m.embed(x).flatten(2).transpose(1, 2) + m.position).mean(1))


def with_class_token(m: Any, x: Tensor) -> Tensor:
    tokens = torch.cat([m.token.expand(x.shape[0], -1, -1), m.embed(x)], 1)
    return m.head(F.relu(tokens.sum(1)))


def siamese(m: Any, x: Tensor) -> Tensor:
    a, b = m.tower(x[:, :3]), m.tower(x[:, 3:])
    return (a - b).abs().sum(1, keepdim=True)


def hinge(m: Any, x: Tensor) -> Tensor:
    y = m.fc(x)
    return torch.clamp(1 - y, min=0).sum(-1)


def dueling(m: Any, x: Tensor) -> Tensor:
    h = F.relu(m.body(x))
    a = m.advantage(h)
    return m.value(h) + a - a.mean(1, keepdim=True)


def pairwise(m: Any, x: Tensor) -> Tensor:
    """Differences of all pairs of inputs."""
    return m.fc((x[:, :, None] - x[:, None, :]).flatten(1))


def graph_layer(m: Any, x: Tensor) -> Tensor:
    return m.out(F.relu(m.adjacency @ m.fc(x)).mean(1))


def heads(m: Any, x: Tensor) -> Tensor:
    """A matrix of its own for each head."""
    return torch.einsum("bthi,hij->bthj", x.view(-1, 4, 2, 3), m.weight).flatten(1)


def polynomial_basis(m: Any, x: Tensor) -> Tensor:
    return F.relu(torch.cumsum(m.fc(x), 1)) + m.fc(x).flip(1).roll(1, 1)


ORDINARY: dict[str, tuple[Make, tuple[int, ...]]] = {
    # networks of vision
    "mlp": (seq(mod(FC, 6, 5), nn.ReLU, mod(nn.Dropout), mod(FC, 5, 3)), VEC),
    "lenet": (seq(mod(CONV, 2, 3, 3), nn.ReLU, mod(nn.MaxPool2d, 2), nn.Flatten, mod(FC, 27, 4)), IMG),
    "resnet block": (basic_block(), IMG),
    "resnet block, strided": (basic_block(2), IMG),
    "mobilenet block": (inverted_residual(), IMG),
    "u-net, transposed": (u_net(mod(UP, 4, 4, 2, stride=2)), IMG),
    "u-net, nearest": (u_net(mod(nn.Upsample, scale_factor=2)), IMG),
    "u-net, bilinear": (u_net(mod(nn.Upsample, scale_factor=2, mode="bilinear", align_corners=True)), IMG),
    "dense block": (fn(dense_block, c1=mod(CONV, 2, 2, 3, padding=1), c2=mod(CONV, 4, 2, 3, padding=1)), IMG),
    "shuffle unit": (fn(shuffle_unit, conv=mod(CONV, 1, 1, 3, padding=1)), IMG),
    "feature pyramid": (
        fn(
            feature_pyramid,
            c1=mod(CONV, 2, 3, 3, padding=1),
            c2=mod(CONV, 3, 3, 3, stride=2, padding=1),
            lateral=mod(CONV, 3, 2, 1),
            top=mod(CONV, 3, 2, 1),
            out=mod(CONV, 2, 1, 3, padding=1),
        ),
        IMG,
    ),
    "spatial pyramid": (fn(spatial_pyramid), IMG),
    "super-resolution": (seq(mod(CONV, 2, 8, 3, padding=1), nn.ReLU, mod(nn.PixelShuffle, 2)), IMG),
    "space to depth": (seq(mod(nn.PixelUnshuffle, 2), mod(CONV, 8, 2, 1), nn.ReLU), IMG),
    "asymmetric convolutions": (seq(mod(CONV, 2, 3, (1, 3), padding=(0, 1)), nn.ReLU, mod(CONV, 3, 2, (3, 1), padding=(1, 0))), IMG),
    "dilated": (seq(mod(CONV, 2, 2, 3, padding=2, dilation=2), mod(nn.LeakyReLU, 0.2)), IMG),
    "reflect padding": (seq(mod(CONV, 2, 2, 3, padding=1, padding_mode="reflect"), nn.ReLU), IMG),
    "circular padding": (seq(mod(CONV, 2, 2, 3, padding=1, padding_mode="circular"), nn.ReLU), IMG),
    "replicate padding": (seq(mod(CONV, 2, 2, 3, padding=1, padding_mode="replicate"), nn.ReLU), IMG),
    "pad layers": (
        seq(mod(nn.ZeroPad2d, (1, 0, 2, 1)), mod(nn.ReflectionPad2d, 1), mod(nn.ConstantPad2d, 1, 0.5), mod(CONV, 2, 1, 3)),
        IMG,
    ),
    "global average": (seq(mod(CONV, 2, 3, 3), nn.ReLU, mod(nn.AdaptiveAvgPool2d, 1), nn.Flatten, mod(FC, 3, 2)), IMG),
    "global maximum": (seq(mod(CONV, 2, 3, 3), nn.ReLU, mod(nn.AdaptiveMaxPool2d, 1), nn.Flatten, mod(FC, 3, 2)), IMG),
    "adaptive maximum": (seq(mod(nn.AdaptiveMaxPool2d, (2, 4)), nn.Flatten), IMG),
    "patches with positions": (fn(patches, embed=mod(CONV, 2, 3, 4, stride=4), position=buffer(1, 4, 3), head=mod(FC, 3, 2)), IMG),
    "volume": (seq(mod(nn.Conv3d, 1, 2, 2), nn.ReLU, mod(nn.MaxPool3d, 2, stride=1), nn.Flatten, mod(FC, 16, 2)), VOL),
    "volume, average": (seq(mod(nn.Conv3d, 1, 2, 3, padding=1), mod(nn.BatchNorm3d, 2), nn.ReLU, mod(nn.AvgPool3d, 2)), VOL),
    "volume, adaptive": (seq(mod(nn.AdaptiveAvgPool3d, (2, 1, 4)), nn.Flatten, mod(FC, 8, 2)), VOL),
    # autoencoders and generators
    "autoencoder": (seq(mod(FC, 6, 2), nn.ReLU, mod(FC, 2, 6), mod(nn.Hardtanh)), VEC),
    "convolutional autoencoder": (
        seq(mod(CONV, 2, 3, 3, stride=2, padding=1), nn.ReLU, mod(UP, 3, 2, 3, stride=2, padding=1, output_padding=1)),
        IMG,
    ),
    "generator": (seq(mod(FC, 6, 8), nn.ReLU, mod(nn.Unflatten, 1, (2, 2, 2)), mod(UP, 2, 2, 4, stride=2, padding=1), nn.ReLU), VEC),
    "transposed, groups": (seq(mod(UP, 2, 4, 3, groups=2, dilation=2), nn.ReLU), IMG),
    "up and convolve": (seq(mod(nn.Upsample, size=(5, 11), mode="nearest"), mod(CONV, 2, 1, 3), nn.ReLU), IMG),
    "bilinear": (seq(mod(nn.Upsample, scale_factor=2, mode="bilinear"), mod(CONV, 2, 1, 3), nn.ReLU), IMG),
    "bilinear, smaller": (fn(lambda m, x: F.interpolate(x, size=(3, 5), mode="bilinear", align_corners=False)), IMG),
    # time series
    "convolutions of a series": (seq(mod(CONV1, 2, 3, 3, padding=1), mod(nn.BatchNorm1d, 3), nn.ReLU, mod(nn.MaxPool1d, 2)), SEQ),
    "wavenet, causal": (fn(temporal_block, c1=mod(CONV1, 2, 3, 3), c2=mod(CONV1, 3, 3, 3, dilation=2), down=mod(CONV1, 2, 3, 1)), SEQ),
    "n-beats": (
        fn(n_beats, b1=seq(mod(FC, 6, 5), nn.ReLU, mod(FC, 5, 8)), b2=seq(mod(FC, 6, 5), nn.ReLU, mod(FC, 5, 8))),
        VEC,
    ),
    "decomposition": (fn(decomposition, season=mod(FC, 8, 3), trend=mod(FC, 8, 3)), SEQ),
    "average of a series": (seq(mod(nn.AvgPool1d, 3, 2, 1), nn.Flatten, mod(FC, 8, 2)), SEQ),
    "adaptive of a series": (seq(mod(nn.AdaptiveAvgPool1d, 4), mod(nn.AdaptiveMaxPool1d, 2), nn.Flatten), SEQ),
    "transposed of a series": (seq(mod(nn.ConvTranspose1d, 2, 3, 4, stride=2, padding=1), nn.ReLU), SEQ),
    "upsampled series": (seq(mod(nn.Upsample, scale_factor=2, mode="linear"), mod(CONV1, 2, 1, 3), nn.ReLU), SEQ),
    "nearest series": (seq(mod(nn.Upsample, scale_factor=3), nn.ReLU), SEQ),
    "last step": (fn(lambda m, x: m.fc(F.relu(m.conv(x))[:, :, -1]), conv=mod(CONV1, 2, 3, 3), fc=mod(FC, 3, 2)), SEQ),
    "global of a series": (fn(lambda m, x: m.fc(F.relu(m.conv(x)).mean(-1)), conv=mod(CONV1, 2, 3, 3), fc=mod(FC, 3, 2)), SEQ),
    "series, same padding": (seq(mod(CONV1, 2, 3, 4, padding="same"), nn.ReLU), SEQ),
    "replicated series": (seq(mod(nn.ReplicationPad1d, 2), mod(nn.ReflectionPad1d, 1), mod(CONV1, 2, 1, 3)), SEQ),
    "differences": (fn(lambda m, x: (x[:, :, 1:] - x[:, :, :-1]).abs().flatten(1)), SEQ),
    "windows of a series": (fn(lambda m, x: m.fc(x.unfold(2, 4, 2).flatten(1)), fc=mod(FC, 24, 3)), SEQ),
    # tokens, tables and sets
    "tokens": (seq(mod(FC, 6, 5), nn.ReLU, mod(FC, 5, 2)), TOK),
    "mlp-mixer": (
        fn(mixer, tok1=mod(FC, 4, 5), tok2=mod(FC, 5, 4), ch1=mod(FC, 6, 3), ch2=mod(FC, 3, 6), head=mod(FC, 6, 2)),
        TOK,
    ),
    "deep sets": (fn(lambda m, x: m.rho(F.relu(m.phi(x)).sum(1)), phi=mod(FC, 6, 4), rho=mod(FC, 4, 2)), TOK),
    "set maximum": (fn(set_maximum, phi=mod(FC, 6, 4), rho=mod(FC, 4, 2)), TOK),
    "class token": (fn(with_class_token, token=buffer(1, 1, 5), embed=mod(FC, 6, 5), head=mod(FC, 5, 2)), TOK),
    "graph": (fn(graph_layer, adjacency=buffer(4, 4), fc=mod(FC, 6, 3), out=mod(FC, 3, 2)), TOK),
    "product with a matrix": (fn(lambda m, x: F.relu(x @ m.w + m.b), w=buffer(6, 3), b=buffer(3)), TOK),
    "product with a vector": (fn(lambda m, x: F.relu(x @ m.w), w=buffer(6)), TOK),
    "heads": (fn(heads, weight=buffer(2, 3, 3)), TOK),
    "tensor contraction": (fn(lambda m, x: torch.einsum("bti,ij->btj", x, m.w), w=buffer(6, 3)), TOK),
    "wide and deep": (fn(lambda m, x: m.wide(x) + m.deep(x), wide=mod(FC, 6, 1), deep=seq(mod(FC, 6, 4), nn.ReLU, mod(FC, 4, 1))), VEC),
    "columns": (fn(lambda m, x: torch.cat([m.a(x[:, :2]), m.b(x[:, [5, 3]])], 1), a=mod(FC, 2, 3), b=mod(FC, 2, 3)), VEC),
    "batch norm of tokens": (fn(lambda m, x: F.relu(m.bn(x)), bn=mod(nn.BatchNorm1d, 4)), TOK),
    "one number": (fn(lambda m, x: m.fc(x).squeeze(-1), fc=mod(FC, 6, 1)), VEC),
    # other heads and losses
    "maxout": (fn(maxout, fc=mod(FC, 6, 10)), VEC),
    "dueling": (fn(dueling, body=mod(FC, 6, 5), value=mod(FC, 5, 1), advantage=mod(FC, 5, 3)), VEC),
    "siamese": (fn(siamese, tower=seq(mod(FC, 3, 4), nn.ReLU)), VEC),
    "hinge": (fn(hinge, fc=mod(FC, 6, 4)), VEC),
    "pairs": (fn(pairwise, fc=mod(FC, 36, 2)), VEC),
    "mask of units": (fn(highway_free, mask=buffer(6), fc=mod(FC, 6, 6)), VEC),
    "filled units": (fn(gated_by_constant, mask=buffer(6), fc=mod(FC, 6, 6)), VEC),
    "assigned units": (fn(assigned, fc=mod(FC, 6, 6)), VEC),
    "cumulative": (fn(polynomial_basis, fc=mod(FC, 6, 4)), VEC),
    "softmax at the end": (seq(mod(FC, 6, 3), mod(nn.Softmax, 1)), VEC),
    # activations
    "prelu per channel": (seq(mod(CONV, 2, 3, 3), mod(nn.PReLU, 3), mod(CONV, 3, 2, 3)), IMG),
    "negative slope": (seq(mod(FC, 6, 4), mod(nn.LeakyReLU, -0.1), mod(FC, 4, 2)), VEC),
    "relu6": (seq(mod(FC, 6, 4), nn.ReLU6, mod(FC, 4, 2)), VEC),
    "hardtanh": (seq(mod(FC, 6, 4), mod(nn.Hardtanh, -0.5, 0.7), mod(FC, 4, 2)), VEC),
    "hardsigmoid": (seq(mod(FC, 6, 4), nn.Hardsigmoid, mod(FC, 4, 2)), VEC),
    "threshold": (seq(mod(FC, 6, 4), mod(nn.Threshold, 0.1, 0.1), mod(FC, 4, 2)), VEC),
    "soft shrink": (fn(lambda m, x: m.fc(x) - m.fc(x).clamp(-0.3, 0.3), fc=mod(FC, 6, 4)), VEC),
    "absolute": (fn(lambda m, x: m.fc(x).abs(), fc=mod(FC, 6, 4)), VEC),
    "maximum of two": (fn(lambda m, x: torch.maximum(m.a(x), m.b(x)), a=mod(FC, 6, 4), b=mod(FC, 6, 4)), VEC),
    "minimum of two": (fn(lambda m, x: torch.minimum(m.a(x), x[:, :1]), a=mod(FC, 6, 4)), VEC),
    "clamp by tensors": (fn(lambda m, x: torch.maximum(torch.minimum(x, m.high), m.low), high=buffer(6), low=lambda: -torch.ones(6)), VEC),
    "concatenated relu": (fn(lambda m, x: torch.cat([F.relu(x), F.relu(-x)], 1)), VEC),
    "smallest of an axis": (fn(lambda m, x: x.amin(1)), TOK),
    "largest of two axes": (fn(lambda m, x: m.conv(x).amax((2, 3)), conv=mod(CONV, 2, 3, 3)), IMG),
    # copies
    "flip": (fn(lambda m, x: x + x.flip(-1) + x.flip(2), k=buffer(1)), IMG),
    "roll": (fn(lambda m, x: F.relu(x - x.roll((1, 2), (2, 3)))), IMG),
    "repeat": (fn(lambda m, x: F.relu(x.repeat(1, 2)) * m.c, c=buffer(12)), VEC),
    "expand": (fn(lambda m, x: (x[:, None, :].expand(-1, 3, -1) * m.c).flatten(1), c=buffer(3, 6)), VEC),
    "stack": (fn(lambda m, x: m.fc(torch.stack([x, F.relu(x), -x], 1)), fc=mod(FC, 6, 2)), VEC),
    "split": (fn(lambda m, x: torch.split(x, [1, 2, 3], 1)[2] - torch.split(x, 3, 1)[0]), VEC),
    "unbind": (fn(lambda m, x: sum(F.relu(part) for part in x.unbind(1))), TOK),
    "select and index": (fn(lambda m, x: x[:, 1] + x[:, m.index].sum(1), index=lambda: torch.tensor([0, 3, 3])), TOK),
    "gather": (fn(lambda m, x: torch.gather(x, 1, m.index.expand(x.shape[0], -1)), index=lambda: torch.tensor([[5, 0, 0, 2]])), VEC),
    "triangle": (fn(lambda m, x: torch.tril(m.fc(x)[:, :, :4]).flatten(1), fc=mod(FC, 6, 5)), TOK),
    "constants joined": (fn(lambda m, x: torch.cat([x, torch.ones(x.shape[0], 2)], 1) @ m.w, w=buffer(8, 2)), VEC),
    "repeat interleave": (fn(lambda m, x: x.repeat_interleave(2, 1) - 1), VEC),
    "strided slice": (fn(lambda m, x: x[:, :, ::2, 1::3].flatten(1)), IMG),
    "mean of all": (fn(lambda m, x: m.fc(x.mean((1, 2, 3), keepdim=True).flatten(1)), fc=mod(FC, 1, 3)), IMG),
    "sum of channels": (fn(lambda m, x: F.relu(x.sum(1, keepdim=True) - x)), IMG),
    "outer sum": (fn(lambda m, x: F.relu(x[:, :3, None] + x[:, None, 3:]).flatten(1)), VEC),
    "weighted mean": (fn(lambda m, x: (m.fc(x) * m.c).mean(-1, keepdim=True), fc=mod(FC, 6, 4), c=buffer(4)), VEC),
    "centred": (fn(lambda m, x: F.relu(x - x.mean(-1, keepdim=True))), TOK),
    "lerp": (fn(lambda m, x: torch.lerp(x, F.relu(x), 0.3)), VEC),
    "circular series": (seq(mod(CONV1, 2, 3, 3, padding=1, padding_mode="circular"), nn.ReLU), SEQ),
    "grouped series": (seq(mod(CONV1, 2, 4, 3, groups=2, stride=2), nn.ReLU, mod(CONV1, 4, 2, 1)), SEQ),
    "pools, rounded up": (seq(mod(nn.MaxPool2d, 3, 2, ceil_mode=True), mod(nn.AvgPool2d, 2, ceil_mode=True), nn.Flatten), IMG),
    "pool with gaps": (seq(mod(nn.MaxPool2d, 2, 1, dilation=3), nn.ReLU), IMG),
    "depthwise separable": (seq(mod(CONV, 2, 2, 3, padding=1, groups=2), mod(CONV, 2, 4, 1), nn.ReLU), IMG),
    "channels last": (fn(lambda m, x: m.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), fc=mod(FC, 2, 3)), IMG),
    "channels chosen": (fn(lambda m, x: F.relu(x[:, [1, 0, 1]]).flatten(1)), IMG),
    "largest of three": (fn(lambda m, x: torch.maximum(torch.maximum(x[:, :2], x[:, 2:4]), x[:, 4:])), VEC),
    "one trained slope": (seq(mod(FC, 6, 4), mod(nn.PReLU), mod(FC, 4, 2)), VEC),
    "leaky": (seq(mod(FC, 6, 4), mod(nn.LeakyReLU, 0.25), mod(FC, 4, 2)), VEC),
    "norm first": (seq(mod(nn.BatchNorm1d, 6), mod(FC, 6, 4), nn.ReLU), VEC),
    "log-softmax at the end": (seq(mod(FC, 6, 3), mod(nn.LogSoftmax, 1)), VEC),
    "mean of tokens and width": (fn(lambda m, x: m.fc(x).mean((1, 2), keepdim=True).flatten(1), fc=mod(FC, 6, 3)), TOK),
    "bottleneck": (seq(mod(CONV, 2, 1, 1), nn.ReLU, mod(CONV, 1, 1, 3, padding=1), nn.ReLU, mod(CONV, 1, 2, 1)), IMG),
    "padded series": (fn(lambda m, x: m.conv(F.pad(x, (3, 1), value=0.25)), conv=mod(CONV1, 2, 1, 2)), SEQ),
    "rsub": (fn(lambda m, x: 1 - F.relu(0.5 - x) / 2), VEC),
}
"""The modules by name, with the shape of one sample."""

REFUSED: dict[str, tuple[Make, tuple[int, ...], str]] = {
    "gelu": (seq(mod(FC, 6, 4), nn.GELU, mod(FC, 4, 2)), VEC, "replace it by ReLU"),
    "convnext block": (seq(mod(CONV, 2, 2, 7, padding=3, groups=2), mod(nn.GroupNorm, 1, 2), mod(CONV, 2, 2, 1)), IMG, "batch norm"),
    "layer norm": (seq(mod(FC, 6, 4), mod(nn.LayerNorm, 4), mod(FC, 4, 2)), VEC, "batch norm"),
    "squeeze and excite": (fn(lambda m, x: x * F.hardsigmoid(x.mean((2, 3), keepdim=True))), IMG, "multiplies two values"),
}
"""Modules that are refused, with the remedy."""


def build(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A module with fixed random weights in eval mode, and its input shape; batch norms have seen some samples."""
    make, shape = ORDINARY[name]
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    module = make()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 1.5)
    torch.random.set_rng_state(state)
    return module.eval(), shape
