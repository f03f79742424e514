"""How fast a machine trains a model: what was measured on it, or what its figures come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from frostline.engine.cost.costs import Rates
from frostline.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frostline.engine.cost.units import UnitCost

# The share of its peak that a machine is assumed to reach in training where nothing was measured.
UTILISATION = 0.4
# What a step of a Trainer takes besides computing, where nothing was measured: batch, calls, logging.
_STEP_SECONDS = 0.01
_CHECK_SECONDS = 1.0  # the self-check, likewise
_HASH_RATE = 1e9  # bytes per second of weights, for the proof


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine by its public figures.

    Attributes:
        name: What it is called.
        fp32: Peak of matrix products in single precision, FLOPs per second.
        half: The same in bf16 (fp16 where it has no bf16), without sparsity.
        bandwidth: Of its memory, bytes per second.
        memory: Bytes.
    """

    name: str
    fp32: float
    half: float
    bandwidth: float
    memory: int


# Peaks by the makers' data sheets, dense.
MACHINES = {
    machine.name: machine
    for machine in (
        Machine("t4", 8.1e12, 65e12, 0.32e12, 16 * 10**9),
        Machine("v100", 15.7e12, 125e12, 0.9e12, 32 * 10**9),
        Machine("rtx3090", 35.6e12, 71e12, 0.936e12, 24 * 10**9),
        Machine("rtx4090", 82.6e12, 165e12, 1.008e12, 24 * 10**9),
        Machine("l4", 30.3e12, 121e12, 0.3e12, 24 * 10**9),
        Machine("a10", 31.2e12, 125e12, 0.6e12, 24 * 10**9),
        Machine("a100-40gb", 19.5e12, 312e12, 1.555e12, 40 * 10**9),
        Machine("a100-80gb", 19.5e12, 312e12, 2.0e12, 80 * 10**9),
        Machine("h100", 67e12, 989e12, 3.35e12, 80 * 10**9),
        Machine("h200", 67e12, 989e12, 4.8e12, 141 * 10**9),
    )
}


def machine_named(name: str) -> Machine:
    """A machine by its name.

    Raises:
        SettingsError: If none is known by that name.
    """
    found = MACHINES.get(name.lower())
    if found is None:
        raise SettingsError(
            f"device is {name!r}, of which no figures are known; known are cpu, which is this machine's, and "
            f"{', '.join(MACHINES)}.\nName one of them, or give its own: --flops 312e12 --bandwidth 2e12."
        )
    return found


@dataclass(frozen=True, slots=True)
class Speeds:
    """Seconds that the parts of a run take on a machine. All of it adds up.

    Attributes:
        how: Where the figures come from, in words.
        source: ``"measured"``: steps of the model's own layers; ``"products"``: matrix products of their shapes;
            ``"figures"``: a machine's peaks.
        overhead: Per step, besides computing.
        head: Per row: what is run once per row, forward and backward.
        last: Per token: the last layer, where it is the lowest that trains.
        lowest: Per token: what a whole layer adds that is the lowest one.
        layer: Per token: each further layer that trains, forward and backward.
        embeddings: Per token: the embeddings, forward and backward.
        fill_layer: Per token: a layer of the prefix, as the store is filled.
        fill_last: The same of the last layer, where it is part of it: often for one position of each row.
        fill_embeddings: The same of the embeddings.
        anew: How many times as long the prefix takes in a step as in the filling pass.
        parameter: Per parameter that trains: gradients clipped, and the optimizer's step.
        check: The self-check of a model, per layer; `check_fixed` besides.
        check_fixed: See there.
        check_trained: How many times as long it takes where everything trains.
        byte: Per byte of weights: fingerprinted once.
        padded_forward: Per position, padding included: a layer's forward in ``transformers.Trainer``.
        padded_layer: The same forward and backward.
        head_token_bytes: What a store keeps per token where the pooler or the head is the lowest unit that trains.
        head_row_bytes: The same per row.
        token_bytes: The same per token where it is a layer.
        memory: Of a store in memory.
        disk: Of a store on disk; None where it cannot be written.
        products: Whether oneDNN computes the linear layers, and keeps what it prepared per shape.
        one_position: Whether the last layer runs for one position of each row.
        seconds: What measuring took.
    """

    how: str
    source: Literal["measured", "products", "figures"]
    overhead: float
    head: float
    last: float
    lowest: float
    layer: float
    embeddings: float
    fill_layer: float
    fill_last: float
    fill_embeddings: float
    anew: float
    parameter: float
    check: float
    check_fixed: float
    check_trained: float
    byte: float
    padded_forward: float
    padded_layer: float
    head_token_bytes: float
    head_row_bytes: float
    token_bytes: float
    memory: Rates
    disk: Rates | None
    products: bool = False
    one_position: bool = False
    seconds: float = 0.0


def from_figures(
    units: Sequence[UnitCost],
    *,
    rate: float,
    bandwidth: float,
    length: float,
    element_bytes: int,
    how: str,
    source: Literal["products", "figures"] = "figures",
) -> Speeds:
    """Reckon speeds from FLOPs and bytes.

    A forward takes its FLOPs at the rate; a backward pass twice as many, one for the gradient of what came in and one
    for that of the weights, of which the lowest layer that trains needs the first within itself only. The optimizer
    reads and writes seven numbers per parameter, and clipping three.

    Args:
        units: Of the model.
        rate: FLOPs per second that are reached.
        bandwidth: Bytes per second.
        length: Mean tokens of a row, as a token meets them: weighted by length.
        element_bytes: Of one stored value.
        how: Where rate and bandwidth come from.
        source: Likewise.
    """
    layers = [unit for unit in units if unit.kind == "layer"]
    rest = [unit for unit in units if unit.kind in {"norm", "other"}]
    count = max(1, len(layers))
    forward = sum(unit.flops + unit.attention_flops * length for unit in (*layers, *rest)) / count / rate
    embeddings = sum(unit.flops for unit in units if unit.kind == "embeddings") / rate
    width = max((unit.width for unit in units), default=0)
    per_row = sum(unit.flops for unit in units if unit.per_row) / rate
    rates = Rates(bandwidth / 4, bandwidth / 4)
    return Speeds(
        how=how,
        source=source,
        overhead=_STEP_SECONDS,
        head=3 * per_row,
        last=3 * forward,
        lowest=3 * forward,
        layer=3 * forward,
        embeddings=3 * embeddings + 4 * width * 4 / bandwidth,
        fill_layer=forward,
        fill_last=forward,
        fill_embeddings=embeddings + 2 * width * 4 / bandwidth,
        anew=1.0,
        parameter=(7 + 3) * 4 / bandwidth,
        check=0.0,
        check_fixed=_CHECK_SECONDS,
        check_trained=1.0,
        byte=1 / _HASH_RATE,
        padded_forward=forward,
        padded_layer=3 * forward,
        head_token_bytes=float(width * element_bytes),
        head_row_bytes=0.0,
        token_bytes=float(width * element_bytes),
        memory=rates,
        disk=Rates(1e9, 2e9),
    )
