"""A short measurement of how fast this machine trains a model: a few of its layers, built from the configuration alone.

Three layers of the model's own width are run on the fast paths of the engine, as the steps of a training run are: with
the head alone training, with one, two and three layers, and with the embeddings too. What these differ by is what a
layer costs, in its place. The same layers run plainly and padded, as ``transformers.Trainer`` runs them.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from frostline.base.random_state import RngState, seed_all
from frostline.engine.cost.machines import UTILISATION, Speeds, from_figures
from frostline.engine.cost.measurement import wait_for
from frostline.engine.kernels.onednn_linear import is_faster, product
from frostline.engine.settings import EngineSettings
from frostline.errors import FrostlineError
from frostline.evidence.proof.fingerprint import fingerprint
from frostline.runs.step_costs import StepCosts, usual_seconds
from frostline.runs.thin_model import LAYERS, NotMeasurable, batch_of, thin_model
from frostline.runs.trainer_costs import trainer_costs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PretrainedConfig, PreTrainedModel

    from frostline.engine.cost.units import UnitCost

_MOST_TOKENS = 1024  # of a batch that is measured; of longer texts fewer rows are run
_MOST_FLOPS = 6e10  # of the longest step that is measured, unless a single row has more
_FILLING_TOKENS = 2048
_CHECK_PER_LAYER = 0.6  # of the self-check of three layers: what grows with their number
_PLANS = ("pooler, head", "layers[-1:]", "layers[-2:]", "layers[-3:]")
_WIDEST = 4096
_BLOCK = 64 << 20  # bytes that are copied
# Of the rate of matrix products, what training is assumed to reach: as measured on a CPU (docs/estimate.md), and the
# same as of a peak elsewhere.
_OF_PRODUCTS = 0.85


def measured_speeds(
    model_class: type[PreTrainedModel],
    config: PretrainedConfig,
    *,
    middle: int,
    typical: Sequence[int],
    dtype: str = "fp32",
    settings: EngineSettings | None = None,
) -> Speeds:
    """Measure how fast this machine's processor trains layers of a model.

    Random states stay as they are, and nothing stays on disk. It takes seconds.

    Args:
        model_class: The model's class.
        config: Its configuration.
        middle: Tokens of a row in the middle; the filling pass takes rows of about one length.
        typical: Tokens of the rows of one batch as a step has it.
        dtype: ``"fp32"``, or ``"bf16"`` for mixed precision.
        settings: What the engine may do.

    Raises:
        NotMeasurable: If the layers do not fit, are no chain of layers of one kind, or cannot be run so.
    """
    half = dtype != "fp32"
    rng = RngState()
    try:
        seed_all(0)
        thin, flops = thin_model(model_class, config)
        rows = list(typical)
        while len(rows) > 1 and (sum(rows) > _MOST_TOKENS or 3 * flops * sum(rows) > _MOST_FLOPS):
            rows = rows[::2]
        step = batch_of(rows, thin)
        filling = batch_of([middle] * max(1, min(_FILLING_TOKENS, round(_MOST_FLOPS / flops)) // middle), thin)
        costs = StepCosts(thin, step, filling, settings or EngineSettings(), half=half)
        return _speeds(thin, costs, step, half=half)
    except (FrostlineError, NotMeasurable):
        raise
    except Exception as error:  # whatever a model's own code makes of such inputs
        raise NotMeasurable(f"a few rows of tokens do not run through it ({type(error).__name__})") from error
    finally:
        rng.restore()


def _speeds(model: nn.Module, costs: StepCosts, step: Mapping[str, torch.Tensor], *, half: bool) -> Speeds:
    """Run steps under one plan after another, and tell what each part costs."""
    began = time.perf_counter()
    tokens, rows = int(step["attention_mask"].sum()), len(step["attention_mask"])
    positions = step["attention_mask"].numel()
    head, last, two, three = (costs.fast(costs.plan(plan)) for plan in _PLANS)
    everything = costs.fast(None)
    parameter = costs.optimizer()
    forward, whole = costs.plain(costs.plan(_PLANS[0])), costs.plain(None)
    hashing = usual_seconds(lambda: fingerprint(model))
    if head.measured is None or last.measured is None or two.measured is None:
        raise NotMeasurable("nothing of it can be replayed")
    # Two layers and the embeddings against one and these; a layer costs no less than the three do on average.
    fill_layer = max(last.fill - two.fill, last.fill / LAYERS)
    sizes = sum(parameter.nbytes for parameter in model.parameters())
    trainer = trainer_costs(half=half)
    return Speeds(
        how=f"{LAYERS} layers of its width, measured on this machine with {torch.get_num_threads()} threads",
        source="measured",
        overhead=trainer.step,
        head=head.seconds / rows,
        last=max(0.0, last.seconds - head.seconds) / tokens,
        lowest=max(0.0, two.seconds - last.seconds) / tokens,
        layer=max(two.seconds - last.seconds, three.seconds - two.seconds) / tokens,
        embeddings=max(0.0, everything.seconds - three.seconds) / tokens,
        fill_layer=fill_layer,
        fill_last=max(0.0, head.fill - last.fill),
        fill_embeddings=max(0.0, two.fill - fill_layer),
        anew=max(1.0, two.measured.anew / two.fill),
        parameter=parameter,
        check=two.check * _CHECK_PER_LAYER / LAYERS,
        check_trained=max(1.0, everything.check / two.check),
        check_fixed=two.check * (1 - _CHECK_PER_LAYER) + two.measured.seconds + trainer.start,
        byte=hashing / sizes,
        padded_forward=forward / LAYERS / positions,
        padded_layer=whole / LAYERS / positions,
        head_token_bytes=head.measured.token_bytes,
        head_row_bytes=head.measured.row_bytes,
        token_bytes=two.measured.token_bytes,
        memory=two.measured.memory,
        disk=two.measured.disk,
        products=half or is_faster(torch.device("cpu"), torch.float32),
        one_position=last.one_position,
        seconds=time.perf_counter() - began,
    )


def product_speeds(
    units: Sequence[UnitCost],
    *,
    tokens: int,
    length: float,
    dtype: torch.dtype,
    device: torch.device | None = None,
) -> Speeds:
    """Reckon speeds from matrix products of a model's width on this machine, in a fraction of a second.

    Args:
        units: Of the model.
        tokens: Of a batch.
        length: Mean tokens of a row, as a token meets them.
        dtype: Of the products.
        device: Where they run; None for the processor.
    """
    began = time.perf_counter()
    device = device or torch.device("cpu")
    on_cpu, by_onednn = device.type == "cpu", is_faster(device, dtype)
    width = max(1, min(_WIDEST, max((unit.width for unit in units), default=1)))
    count = max(1, min(tokens, _MOST_TOKENS))
    threads = torch.get_num_threads()
    rate = _product_rate(count, width, dtype, device, threads)
    bandwidth = _copy_rate(device, threads)
    share = _OF_PRODUCTS if on_cpu else UTILISATION
    how = (
        f"matrix products {width} wide, measured on this machine at {rate / 1e9:,.0f} GFLOP/s, of which training is "
        f"assumed to reach {share:.0%}"
    )
    speeds = from_figures(
        units, rate=share * rate, bandwidth=bandwidth, length=length, element_bytes=4, how=how, source="products"
    )
    kept = by_onednn or (on_cpu and dtype != torch.float32)
    return replace(speeds, products=kept, seconds=time.perf_counter() - began)


@cache  # a process trains many times, on one machine
def _product_rate(count: int, width: int, dtype: torch.dtype, device: torch.device, threads: int) -> float:
    """Measure the FLOPs per second of the product of (count, width) and (width, width); once for so many threads."""
    del threads  # which are of the key alone
    multiply: Any = partial(product, bias=None) if is_faster(device, dtype) else nn.functional.linear
    values, weight = (torch.ones(size, width, dtype=dtype, device=device) for size in (count, width))

    def run() -> None:
        with torch.no_grad():
            multiply(values, weight)
        wait_for(device)

    return 2.0 * count * width * width / usual_seconds(run)


@cache
def _copy_rate(device: torch.device, threads: int) -> float:
    """Measure the bytes per second that copying a large block reads and writes; once for so many threads."""
    del threads
    block = torch.zeros(_BLOCK // 4, device=device)

    def run() -> None:
        block.clone()
        wait_for(device)

    return 2.0 * _BLOCK / usual_seconds(run)
