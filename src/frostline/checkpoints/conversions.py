"""Which parameters of a model the tensors of a checkpoint become when transformers loads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from frostline.checkpoints.tensor_files import StoredTensor
from frostline.compat.models import LoaderNames, converted
from frostline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from transformers import PreTrainedModel


@dataclass(slots=True, eq=False)
class Part:
    """Tensors of a checkpoint, and what the loader makes of them.

    Attributes:
        sources: Per name in the checkpoint, the tensor; in the order in which the loader takes them.
        shapes: Per parameter or buffer that they become, the shape that it gets; None where they do not fit together.
        conversion: How the loader merges, splits or turns them; None where it takes one tensor as it is.
    """

    sources: dict[str, StoredTensor]
    shapes: dict[str, tuple[int, ...] | None]
    conversion: Conversion | None = None

    def load(self) -> dict[str, StoredTensor]:
        """Make the parameters and buffers; what has to be merged or split for that is read into memory.

        Raises:
            ModelError: If the tensors do not fit together.
        """
        first = next(iter(self.sources.values()))
        if self.conversion is None:
            return dict.fromkeys(self.shapes, first)
        values = [source.load() for source in self.sources.values()]
        try:
            made = self.conversion.run(values)
        except Exception as error:  # noqa: BLE001 - whatever an operation makes of shapes that do not fit
            reason = " ".join(str(error).split())[:120]
            raise ModelError(
                f"The tensors for {next(iter(self.shapes))} in '{first.file}' do not fit: {reason}"
            ) from None
        return {
            name: StoredTensor(name, value.dtype, tuple(value.shape), first.file, 0, value.contiguous())
            for name, value in made.items()
        }


@dataclass(slots=True, eq=False)
class Conversion:
    """A conversion of transformers for one parameter, or for several that are cut from one tensor.

    Attributes:
        converter: The ``WeightConverter`` of transformers.
        key: The name that the loader gives its first parameter.
        model: The model.
        taken: Per tensor, its name and the converter's pattern that the name matches.
    """

    converter: Any
    key: str
    model: PreTrainedModel
    taken: list[tuple[str, str]] = field(default_factory=list)

    def run(self, values: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Convert the tensors' values; on the meta device too."""
        taken = [(*named, value) for named, value in zip(self.taken, values, strict=True)]
        made = converted(self.converter, self.key, taken, self.model)
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}


class Places:
    """Finds what the tensors of a checkpoint are for in a model, by the names and conversions of transformers' loader.

    Args:
        model: The model; on the meta device too.
        tensors: Per name, the tensors of the checkpoint.

    Attributes:
        shapes: The shape of every parameter and buffer of the model, under each of its names.
        parts: What the tensors become. Those that the loader has no use for are in none.
    """

    def __init__(self, model: PreTrainedModel, tensors: Mapping[str, StoredTensor]) -> None:
        self.shapes = {
            name: tuple(tensor.shape)
            for named in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
            for name, tensor in named
        }
        self._prefix = f"{model.base_model_prefix}."
        self.parts = _parts(model, tensors)
        self._part_of = {name: part for part in self.parts for name in part.sources}

    def __call__(self, name: str) -> tuple[str, ...]:
        """Parameters and buffers of the model that a tensor of the checkpoint is for, wholly or in part."""
        part = self._part_of.get(name)
        if part is not None:
            return tuple(part.shapes)
        # Tables that older releases saved, and that the model now makes itself.
        candidates = (name, self._prefix + name, name.removeprefix(self._prefix))
        return tuple(found for found in candidates if found in self.shapes)[:1]

    def part(self, name: str) -> Part | None:
        """The part that a tensor of the checkpoint goes into; None where the loader has no use for it."""
        return self._part_of.get(name)

    def as_is(self, name: str) -> str | None:
        """The parameter or buffer that a tensor of the checkpoint is as it stands; None where it is none."""
        part = self._part_of.get(name)
        return next(iter(part.shapes)) if part is not None and part.conversion is None else None


def _parts(model: PreTrainedModel, tensors: Mapping[str, StoredTensor]) -> list[Part]:
    parts: dict[str, Part] = {}
    for name, key, pattern, converter in LoaderNames(model).in_order(tensors):
        if pattern is None:  # of several tensors for one parameter, the loader takes the first
            parts.setdefault(key, Part({name: tensors[name]}, {key: tensors[name].shape}))
            continue
        part = parts.setdefault(key, Part({}, {}, Conversion(converter, key, model)))
        if part.conversion is not None:
            part.sources[name] = tensors[name]
            part.conversion.taken.append((name, pattern))
    for key, part in parts.items():
        if part.conversion is not None:
            part.shapes = _shapes(part.conversion, part.sources.values(), key)
    return list(parts.values())


def _shapes(conversion: Conversion, sources: Iterable[StoredTensor], key: str) -> dict[str, tuple[int, ...] | None]:
    try:
        made = conversion.run([torch.empty(source.shape, dtype=source.dtype, device="meta") for source in sources])
    except Exception:  # noqa: BLE001 - whatever an operation makes of shapes that do not fit
        return {key: None}
    return {name: tuple(value.shape) for name, value in made.items()}
