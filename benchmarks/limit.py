"""The limit by FLOPs: what must be computed, at the rate of the machine's own matrix product.

What must be computed is each matrix product of the model once per token that is not padding: of the frozen prefix once
in all, of the suffix three times per epoch (forward, gradient of the input, gradient of the weight; no gradient of the
input where only frozen modules lie beneath). Where the head reads one position, queries, output and feed-forward of the
last layer are needed for that one only. Rates are measured per shape, forward shapes standing for those of the backward
pass: that of `torch.mm`, or of oneDNN's linear map, which torch has on board, whichever is faster. Attention's own
products count at the mean rate of the others. Everything else (norms, activations, softmax, embeddings, the optimizer)
counts nothing, so no program reaches the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from benchmarks.job import Job

PREFIX_BATCH = 64  # rows per forward of the prefix, for the shape at which its rate is measured
_SECONDS = 0.2  # of measuring, per shape

# From the shape of a product, (positions, inner) times (inner, outer), to FLOPs per second.
Rate = Callable[[int, int, int], float]


@dataclass(frozen=True)
class Product:
    """One linear map: over how many positions in all, and how many at once."""

    positions: float
    at_once: int
    inner: int
    outer: int

    @property
    def flops(self) -> float:
        """A multiplication and an addition per element of the weight and position."""
        return 2.0 * self.positions * self.inner * self.outer


@dataclass(frozen=True)
class Required:
    """What must be computed.

    Attributes:
        products: The linear maps.
        attention: The FLOPs of scores and weighted sums.
    """

    products: tuple[Product, ...]
    attention: float

    def seconds(self, rate: Rate) -> float:
        """How long it takes at the machine's own rates."""
        flops = sum(product.flops for product in self.products)
        seconds = sum(product.flops / rate(product.at_once, product.inner, product.outer) for product in self.products)
        return seconds * (1 + self.attention / flops)


@dataclass(frozen=True)
class _Passes:
    """How often a layer is computed: with its input's gradient or without, and on how many rows at once."""

    inner: int
    inputs: int
    batch: int


def required(job: Job, config: Any, lengths: Sequence[int]) -> Required:
    """What a job on a BERT must compute.

    Args:
        job: What trains, for how many epochs.
        config: The model's ``hidden_size``, ``intermediate_size`` and ``num_hidden_layers``.
        lengths: The tokens of each row, special tokens included and padding not.
    """
    layers = config.num_hidden_layers
    frozen = 0 if job.top is None else layers - job.top
    products: list[Product] = []
    attention = 0.0
    each = 3 if job.rank is None else 2  # adapters leave out the gradient of the weights; their own products are small
    for layer in range(layers):
        if layer < frozen:
            passes = _Passes(1, 1, PREFIX_BATCH)
        else:
            lowest = layer == frozen and job.top is not None
            passes = _Passes(each * job.epochs, (each - 1 if lowest else each) * job.epochs, job.batch)
        pooled = layer == layers - 1
        products += _linear_maps(config, lengths, passes, pooled=pooled)
        scored = sum(lengths) if pooled else sum(length**2 for length in lengths)
        attention += 4.0 * scored * config.hidden_size * (1 if layer < frozen else 3 * job.epochs)
    pooler = (2 if job.top == 0 else each) * job.epochs
    products.append(Product(len(lengths) * pooler, job.batch, config.hidden_size, config.hidden_size))
    return Required(tuple(product for product in products if product.positions), attention)


def _linear_maps(config: Any, lengths: Sequence[int], passes: _Passes, *, pooled: bool) -> Iterator[Product]:
    """The six linear maps of a layer; all but keys and values on one position per row where it is `pooled`."""
    hidden, wide = config.hidden_size, config.intermediate_size
    tokens, rows = sum(lengths), len(lengths)
    every = round(passes.batch * tokens / rows)
    few, at_once = (rows, passes.batch) if pooled else (tokens, every)
    yield from [Product(tokens * passes.inputs, every, hidden, hidden)] * 2  # keys, values
    yield Product(few * passes.inputs, at_once, hidden, hidden)  # queries
    yield Product(few * passes.inner, at_once, hidden, hidden)  # output
    yield Product(few * passes.inner, at_once, hidden, wide)
    yield Product(few * passes.inner, at_once, wide, hidden)


def measured_rate(dtype: Any, device: str) -> Rate:
    """The machine's own rate, measured once per shape with as many threads as torch has."""
    from functools import cache

    import torch
    from torch.utils.benchmark import Timer

    @cache
    def rate(positions: int, inner: int, outer: int) -> float:
        x = torch.randn(positions, inner, dtype=dtype, device=device)
        w = torch.randn(outer, inner, dtype=dtype, device=device)  # as nn.Linear keeps it

        def seconds(run: Callable[[], Tensor]) -> float:
            timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
            found: float = timer.blocked_autorange(min_run_time=_SECONDS).median
            return found

        return 2.0 * positions * inner * outer / min(map(seconds, _ways(x, w)))

    return rate


def _ways(x: Tensor, w: Tensor) -> Iterator[Callable[[], Tensor]]:
    """The ways in which torch can compute x, (positions, inner), by w, (outer, inner)."""
    import torch

    yield lambda: torch.mm(x, w.t())
    if x.is_cpu and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        # No public name. Where the processor lacks instructions for this precision, it raises.
        with suppress(RuntimeError):
            torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")  # noqa: SLF001
            yield lambda: torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")  # noqa: SLF001
