"""The tower: every unit with its parameters, as a page draws them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from frostline.anatomy.origin import Origin
from frostline.base.dtypes import dtype_word
from frostline.plan.describe import literal

if TYPE_CHECKING:
    from torch import nn

    from frostline.anatomy.kinds import Kind
    from frostline.anatomy.modelmap import ModelMap, Unit
    from frostline.anatomy.origin import OriginWord


@dataclass(frozen=True, slots=True)
class TowerParameter:
    """One parameter.

    Attributes:
        name: As ``named_parameters()`` prints it.
        shape: Its shape.
        dtype: Its dtype, such as ``float32``.
        bytes: What its values take.
        trains: Whether it trains.
        origin: Where its values come from.
        kinds: The kinds that it is of.
        term: How a selector names it: by the name, or by a regular expression where the language reads that otherwise.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    trains: bool
    origin: OriginWord
    kinds: tuple[Kind, ...]
    term: str

    @property
    def size(self) -> int:
        """Number of its values."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class TowerUnit:
    """One unit.

    Attributes:
        name: Its name.
        kind: The name without number and stack.
        stack: The stack that it goes with; ``""`` for the only one, and for what goes with none.
        index: Place of a layer in its stack; None for what is no layer.
        parameters: Its parameters; a tied tensor is in the unit of its first name.
        buffers: Number of its buffers.
        buffer_bytes: What they take.
        aliases: Further names, in this unit, of tensors whose first name is in another one.
        shared: Whether a tensor of it is another unit's too, or it runs more than once.
    """

    name: str
    kind: str
    stack: str
    index: int | None
    parameters: tuple[TowerParameter, ...]
    buffers: int = 0
    buffer_bytes: int = 0
    aliases: tuple[str, ...] = ()
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Tower:
    """A model as a tower of units, from the embeddings at the bottom to the head.

    Attributes:
        model_class: Name of the model's class.
        checkpoint: Where its weights come from; None where that is not known.
        units: In depth order.
        tied: Per tensor with several names, all of them, the printed one first.
    """

    model_class: str
    checkpoint: str | None
    units: tuple[TowerUnit, ...]
    tied: tuple[tuple[str, ...], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The tower as plain values."""
        return asdict(self)


def tower_of(model: nn.Module, anatomy: ModelMap, origin: Origin) -> Tower:
    """Draw up the tower of a model.

    Args:
        model: The model, frozen as it is; on the meta device too, since no values are read.
        anatomy: Its anatomy.
        origin: Where its parameters come from.
    """
    units = tuple(_unit(model, anatomy, unit, origin) for unit in anatomy.units)
    return Tower(anatomy.model_class, origin.source, units, anatomy.tied)


def _unit(model: nn.Module, anatomy: ModelMap, unit: Unit, origin: Origin) -> TowerUnit:
    buffers = [model.get_buffer(name) for name in unit.buffer_names]
    return TowerUnit(
        name=unit.name,
        kind=unit.kind,
        stack=unit.stack,
        index=unit.index,
        parameters=tuple(_parameter(model, anatomy, name, origin) for name in unit.parameter_names),
        buffers=len(buffers),
        buffer_bytes=sum(buffer.numel() * buffer.element_size() for buffer in buffers),
        aliases=unit.alias_names,
        shared=unit.shared,
    )


def _parameter(model: nn.Module, anatomy: ModelMap, name: str, origin: Origin) -> TowerParameter:
    parameter = model.get_parameter(name)
    return TowerParameter(
        name=name,
        shape=tuple(parameter.shape),
        dtype=dtype_word(parameter.dtype),
        bytes=parameter.numel() * parameter.element_size(),
        trains=parameter.requires_grad,
        origin=origin.of(name),
        kinds=tuple(kind for kind, names in anatomy.kinds.items() if name in names),
        term=literal(name),
    )
