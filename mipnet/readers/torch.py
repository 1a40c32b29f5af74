"""Networks from torch modules: exported by torch.export, read in float64, and compared with the module."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from mipnet.errors import NetworkError, UnsupportedError, suggest_keywords
from mipnet.limits.deadline import NO_DEADLINE, Deadline, TimeLimit
from mipnet.network.given_arrays import numbers
from mipnet.network.graph import Network
from mipnet.readers import torch_activations, torch_ops, torch_shapes, torch_windows  # noqa: F401 - they register the rules
from mipnet.readers.conversion import one_line, reading
from mipnet.readers.torch_call import reads
from mipnet.readers.torch_copy import copied, with_plain_weights
from mipnet.readers.torch_graph import TorchReader

__all__ = ["from_torch", "reads"]

EXPORT_SAMPLES = 3
"""Number of samples in the exported batch: one that a module is unlikely to treat as a special case."""

WEIGHT_SIZE_MIN = 1e-9
"""Solvers drop matrix entries whose absolute value is below this."""

WEIGHT_RATIO_MAX = 1e9
"""Largest ratio of two weights of a layer, in absolute value, without a note."""

MODULE_DIFFERENCE_MAX = 1e-8
"""Largest difference between network and module, relative to the largest output or to 1 if that is larger."""


@suggest_keywords
def from_torch(module: nn.Module, example_input: ArrayLike | Tensor, time_limit: TimeLimit = None) -> Network:
    """Read the network that a module computes in eval mode, with float64 weights; the module itself is not changed.

    ``example_input`` is an array or tensor of shape ``(samples, *shape of one sample)``; only its shape matters.  The name of a node
    is the path of its module, or its kind and a counter if there is no path or the path is a number; `Network.modules` holds the
    paths.  A final softmax or log-softmax is taken off, see `Network.softmax`.

    ``time_limit`` is in seconds of the whole call, None for no limit; it does not end torch.export itself, which takes time by the number
    of operators, not of weights.

    Raises `UnsupportedError` for operators that mipnet does not have and for modules that torch.export cannot trace.
    Raises `NetworkError` for weights that are NaN, and if the network differs from the module.  Raises `MemoryLimitReached` if its
    weights would not fit into memory, and `TimeLimitReached` at the end of the time.
    """
    deadline, work = Deadline.after(time_limit), f"read the {type(module).__name__}"
    shape = _sample_shape(example_input)
    stored = (*module.parameters(), *module.buffers()) if isinstance(module, nn.Module) else ()
    parameters = sum(value.numel() for value in stored if not is_lazy(value))
    with reading(f"the {type(module).__name__}", parameters), _casts_to_float64(stored):
        deadline.check(work)
        ours = _float64_copy(module)
        deadline.check(work)
        batch = torch.zeros(EXPORT_SAMPLES, *shape, dtype=torch.float64)
        _check_forward(ours, batch)
        with quiet():
            deadline.check(work)
            program = _export(ours, batch)
            reader = TorchReader(program, deadline)
            network = reader.network()
        check_equal(network, lambda x: ours(x.clone()), (1, 4), deadline)
        return network.with_notes(*weight_notes(network, deadline))


def _sample_shape(example: Any) -> tuple[int, ...]:
    if isinstance(example, tuple | dict | set | str) or example is None:
        raise UnsupportedError(
            f"example_input is a {type(example).__name__}; expected one array or tensor: mipnet reads modules of one input"
        )
    given = (
        example
        if isinstance(example, Tensor)
        else torch.from_numpy(np.require(numbers(example, "example_input", UnsupportedError), requirements="W"))
    )
    if not given.is_floating_point():
        raise UnsupportedError(f"example_input holds numbers of type {given.dtype}; expected floating-point numbers")
    if given.ndim < 2 or not given.numel():
        raise NetworkError(
            f"example_input has shape {tuple(given.shape)}; expected (samples, *shape of one sample), such as `example_input[None]`"
        )
    return tuple(given.shape[1:])


def _float64_copy(module: nn.Module) -> nn.Module:
    """Return a copy of the module on the CPU, in eval mode and float64."""
    if not isinstance(module, nn.Module):
        raise UnsupportedError(f"from_torch was given a {type(module).__name__}; expected a torch.nn.Module")
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedError(f"from_torch was given a {type(module).__name__}; expected the torch.nn.Module that it was compiled from")
    for name, part in module.named_modules():
        if ".quantized." in f"{type(part).__module__}.":
            what = f"`{name}` is a quantised {type(part).__name__}, whose numbers are codes"
            raise UnsupportedError(f"{what}; expected the module before it is quantised")
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(value) or value.is_meta:
            raise UnsupportedError(f"parameter `{name}` has no numbers; run the module once, or load its weights, before it is read")
        if value.is_complex() or value.is_quantized:
            raise UnsupportedError(f"parameter `{name}` is of type {value.dtype}; expected real floating-point numbers")
    original = getattr(module, "_orig_mod", module)
    return with_plain_weights(copied(original)).to("cpu", torch.float64).eval().requires_grad_(False)


def _check_forward(module: nn.Module, batch: Tensor) -> None:
    """Raise an error unless the module takes a batch and returns one tensor with the sample axis first."""
    out = _run(module, batch.clone())
    if not isinstance(out, Tensor):
        raise UnsupportedError(f"the module returns a {type(out).__name__}; expected one tensor: mipnet reads modules of one output")
    if not out.ndim or len(out) != len(batch):
        raise NetworkError(
            f"{len(batch)} samples of shape {tuple(batch.shape[1:])} give an output of shape {tuple(out.shape)};"
            " expected the sample axis first, in example_input and in the output"
        )


def _casts_to_float64(stored: Iterable[Tensor]) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which casts to float32 change nothing, unless the module has numbers in float64, which they would round."""
    return contextlib.nullcontext() if any(value.dtype == torch.float64 for value in stored) else _CastsToFloat64()


class _CastsToFloat64(TorchFunctionMode):
    """Casts to float32 become casts to float64, the number type in which a module is read."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of torch, with float64 in place of float32."""
        if func is torch.Tensor.float:
            func, args, kwargs = torch.Tensor.to, (args[0], torch.float64), {}
        elif func is torch.Tensor.to:
            args = tuple(torch.float64 if each is torch.float32 else each for each in args)
            kwargs = {key: torch.float64 if each is torch.float32 else each for key, each in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))


def _run(function: Callable[[Tensor], Any], batch: Tensor) -> Any:
    try:
        with torch.no_grad(), quiet():
            return function(batch)
    except Exception as error:
        raise NetworkError(
            f"the module fails in float64 on {len(batch)} samples of shape {tuple(batch.shape[1:])} ({one_line(error)});"
            " example_input needs the shape (samples, *shape of one sample) and the module a forward of one input, without casts to"
            " or constants of another number type"
        ) from None


def _export(module: nn.Module, batch: Tensor) -> ExportedProgram:
    try:
        with torch.no_grad(), silent():
            return torch.export.export(module, (batch,), strict=False)
    except Exception as error:
        raise UnsupportedError(
            f"torch.export cannot trace `{type(module).__name__}` ({one_line(error)}); rewrite its forward without branches or loops"
            " that depend on the values of tensors"
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings that torch raises about itself."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.filterwarnings("ignore", category=category, module=r"torch\.")
        warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel lengths", UserWarning)
        yield


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Hide what torch logs and prints about a failure; the error contains it."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with quiet(), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def check_equal(network: Network, module: Callable[[Tensor], Any], sizes: tuple[int, ...], deadline: Deadline = NO_DEADLINE) -> None:
    """Raise `NetworkError` unless the network and the module agree on random batches of these sizes, in float64."""
    work = "compare the network with the module that it was read from"
    generator = torch.Generator().manual_seed(0)
    for size in sizes:
        x = torch.randn(size, *network.input_shape, generator=generator, dtype=torch.float64)
        deadline.check(work)
        wanted = _run(module, x)
        deadline.check(work)
        found = torch.from_numpy(network.outputs(x))
        if isinstance(wanted, Tensor) and wanted.shape == found.shape[:1]:  # one number per sample
            wanted = wanted.reshape(found.shape) if found.shape[1:] == (1,) else wanted
        same_shape = isinstance(wanted, Tensor) and wanted.shape == found.shape
        error = float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1)) if same_shape else float("inf")
        if not error <= MODULE_DIFFERENCE_MAX:
            raise NetworkError(
                f"the network read from the module is not the module: on {size} random samples they differ by {error:.1e}, relatively"
                f" (shapes {tuple(found.shape)} and {tuple(getattr(wanted, 'shape', ()))}); does its forward depend on the batch size,"
                " on random numbers, or on what it has seen before?"
            )


def weight_notes(network: Network, deadline: Deadline = NO_DEADLINE) -> list[str]:
    """Return one note per layer whose weights are too small, or differ too much in size, for a solver's tolerances."""
    notes = []
    for node in network.nodes:
        if node.name != node.origin:
            continue
        for key, value in node.layer.weights().items():
            deadline.check(f"look at the weights of `{node.name}`")
            sizes = value.abs().flatten()
            if not sizes.all():  # else a copy of millions of numbers is spared
                sizes = sizes[sizes != 0]
            if not sizes.numel():
                continue
            least, largest = sizes.min(), sizes.max()
            if not least >= WEIGHT_SIZE_MIN and (tiny := int((sizes < WEIGHT_SIZE_MIN).sum())):
                notes.append(f"{tiny} nonzero numbers in `{key}` of `{node.name}` are below {WEIGHT_SIZE_MIN:.0e}; solvers treat them as 0")
            if float(largest / least) > WEIGHT_RATIO_MAX:
                notes.append(f"`{key}` of `{node.name}` ranges from {least:.1e} to {largest:.1e}, more than solvers resolve")
    return notes
