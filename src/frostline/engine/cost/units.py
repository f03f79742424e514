"""What each unit of a model weighs and computes, read from names and shapes alone: on the meta device too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from frostline.anatomy.modelmap import ModelMap
from frostline.anatomy.wrappers import unwrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from frostline.anatomy.modelmap import Unit
    from frostline.anatomy.placement import UnitKind

# AdamW keeps two moments like the parameter, and a step counted in one float of its own per tensor.
_MOMENTS, _STEP_BYTES = 2, 4


@dataclass(frozen=True, slots=True)
class UnitCost:
    """What one unit weighs and computes.

    Attributes:
        name: The unit's name.
        kind: Its kind.
        parameters: Its parameters; a tied tensor counts in the unit of its first name.
        trainable_parameters: Those that train.
        bytes: Of its parameters and buffers.
        trainable_bytes: Of the parameters that train, which is what their gradients take too.
        largest_trainable_bytes: Of the largest of them.
        optimizer_bytes: Of the state that AdamW keeps for them.
        flops: Of its matrix products in a forward, per token; per row where it is run once per row. A multiplication
            and an addition count as two.
        attention_flops: Of the scores and weighted sums, per token and token of its row.
        trained_share: Of `flops`, the share whose weights train, 0 to 1: only these have a gradient of the weight.
        per_row: Whether it is run once per row, as the pooler and the head of a classifier of texts.
        saved: Values that autograd keeps of it for the backward pass, per token (per row where it is run so).
        heads: Of its attention: so many values of a byte are kept per pair of tokens, which dropout leaves.
        width: Values per token that come in from the unit beneath: what a store keeps where it is the frost line.
    """

    name: str
    kind: UnitKind
    parameters: int
    trainable_parameters: int
    bytes: int
    trainable_bytes: int
    largest_trainable_bytes: int
    optimizer_bytes: int
    flops: float
    attention_flops: float
    trained_share: float
    per_row: bool
    saved: float
    heads: int
    width: int

    @property
    def trains(self) -> bool:
        """Whether anything of it trains."""
        return self.trainable_parameters > 0


def unit_costs(model: nn.Module) -> tuple[UnitCost, ...]:
    """Read what each unit of a model weighs and computes, with its parameters frozen as they are.

    Matrix products are those of all weights with two axes or more but the tables of embeddings; of a mixture of
    experts, as many experts count as a token is sent to. What a layer keeps for the backward pass is, per token: what
    each of its linear maps gives out, what the widest one takes in, and three times its width (attention's output and
    two norms'); after Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models" (2022),
    section 4, with scores that are not kept.

    Args:
        model: Any module.

    Returns:
        In depth order, one per unit.
    """
    anatomy = ModelMap.of(model)
    width, aliased = width_of(model), _aliased(anatomy)
    return tuple(_cost(model, unit, width, anatomy.repeats, aliased) for unit in anatomy.units)


def unit_products(model: nn.Module) -> tuple[dict[str, float], ...]:
    """Per unit in depth order, the FLOPs per token of each weight of a matrix product, by its name there."""
    anatomy = ModelMap.of(model)
    aliased = _aliased(anatomy)
    return tuple(
        {name: flops for name, (flops, _, _, _) in _products(model, _weights(model, unit), aliased)}
        for unit in anatomy.units
    )


def _aliased(anatomy: ModelMap) -> set[str]:
    """Further names of tied tensors in layers and heads: a table of embeddings may be a product's weight there."""
    return {name for unit in anatomy.units for name in unit.alias_names if unit.kind in {"layer", "head"}}


def _weights(model: nn.Module, unit: Unit) -> dict[str, nn.Parameter]:
    return {name: model.get_parameter(name) for name in (*unit.parameter_names, *unit.alias_names)}


def width_of(model: nn.Module) -> int:
    """Values per token between the layers; 0 where the configuration does not say."""
    text = _text_config(model)
    return int(getattr(text, "hidden_size", None) or getattr(text, "d_model", None) or 0)


def heads_of(model: nn.Module) -> int:
    """Heads of an attention; 0 where the configuration does not say."""
    found = getattr(_text_config(model), "num_attention_heads", None)
    return found if isinstance(found, int) else 0


def _text_config(model: nn.Module) -> Any:
    config: Any = getattr(unwrap(model).core, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def frost_line_of(units: Sequence[UnitCost]) -> int | None:
    """Place of the lowest unit that trains; None where nothing does."""
    return next((place for place, unit in enumerate(units) if unit.trains), None)


def _cost(model: nn.Module, unit: Unit, width: int, repeats: int, aliased: set[str]) -> UnitCost:
    parameters = {name: model.get_parameter(name) for name in unit.parameter_names}
    buffers = [model.get_buffer(name) for name in unit.buffer_names]
    trained = [parameter for parameter in parameters.values() if parameter.requires_grad]
    products = dict(_products(model, _weights(model, unit), aliased))
    flops = sum(flops for flops, _, _, _ in products.values())
    with_gradient = sum(flops for flops, _, _, trains in products.values() if trains)
    runs = repeats if unit.kind == "layer" else 1
    given = sum(given for _, _, given, _ in products.values())
    widest = max((taken for _, taken, _, _ in products.values()), default=0)
    layer = unit.kind == "layer"
    own_bytes = sum(parameter.numel() * parameter.element_size() for parameter in trained)
    return UnitCost(
        name=unit.name,
        kind=unit.kind,
        parameters=sum(parameter.numel() for parameter in parameters.values()),
        trainable_parameters=sum(parameter.numel() for parameter in trained),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*parameters.values(), *buffers)),
        trainable_bytes=own_bytes,
        largest_trainable_bytes=max((parameter.nbytes for parameter in trained), default=0),
        optimizer_bytes=_MOMENTS * own_bytes + _STEP_BYTES * len(trained),
        flops=float(flops * runs),
        attention_flops=4.0 * width * runs if layer else 0.0,
        trained_share=with_gradient / flops if flops else float(bool(trained)),
        per_row=unit.kind in {"pooler", "head"},
        saved=float((given + widest + 3 * width if layer else given + 2 * width) * runs),
        heads=heads_of(model) * runs if layer else 0,
        width=width,
    )


def _products(
    model: nn.Module, parameters: dict[str, nn.Parameter], aliased: set[str]
) -> Iterator[tuple[str, tuple[float, float, float, bool]]]:
    """Per weight of a matrix product: its FLOPs per token, what goes in and comes out per token, whether it trains."""
    for name, parameter in parameters.items():
        owner = model.get_submodule(name.rpartition(".")[0])
        if parameter.dim() < 2 or (isinstance(owner, nn.Embedding) and name not in aliased):
            continue
        share = _used_share(model, parameter, name)
        inner, outer = _sides(owner, parameter)
        elements = parameter.numel() * share
        copies = max(1.0, elements / (inner * outer))  # of experts, or positions of a convolution's kernel
        yield name, (2.0 * elements, inner * copies, outer * copies, parameter.requires_grad)


def _sides(owner: nn.Module, weight: Tensor) -> tuple[int, int]:
    """What one product takes in and gives out."""
    if isinstance(owner, Conv1D):
        return weight.shape[0], weight.shape[1]
    return (weight.shape[-1], weight.shape[-2]) if weight.dim() != 4 else (weight.shape[1], weight.shape[0])


def _used_share(model: nn.Module, weight: Tensor, name: str) -> float:
    """The share of a weight that a token meets: of experts only those that it is sent to."""
    if ".experts." not in f".{name}.":
        return 1.0
    text = _text_config(model)
    chosen = next(
        (getattr(text, field) for field in ("num_experts_per_tok", "top_k_experts") if hasattr(text, field)), None
    )
    fields = ("num_local_experts", "num_experts", "n_routed_experts")
    count = next((getattr(text, field) for field in fields if getattr(text, field, None)), None)
    if weight.dim() == 3:
        count = weight.shape[0]
    return min(1.0, chosen / count) if chosen and count else 1.0
