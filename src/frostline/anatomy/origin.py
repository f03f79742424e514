"""Origin: which tensors came from the checkpoint, and which are freshly initialised."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from frostline.anatomy.kinds import kinds_of
from frostline.anatomy.ties import tied_groups
from frostline.anatomy.wrappers import unwrap
from frostline.checkpoints.quiet_loading import quiet
from frostline.checkpoints.reading import read_headers
from frostline.checkpoints.source import locate
from frostline.compat.models import was_loaded
from frostline.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

OriginWord = Literal["pretrained", "new", "unknown"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model's parameters come from.

    Attributes:
        source: The checkpoint; None where none is known.
        new: Names of the parameters that are missing there, or have another shape there.
        unused: Names in the checkpoint that the model has no place for.
        mismatched: Names among `new` that the checkpoint holds in another shape.
        unknown: Names that the checkpoint cannot tell about: the parameters of adapters.
    """

    source: str | None
    new: frozenset[str] = frozenset()
    unused: tuple[str, ...] = ()
    mismatched: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()

    def of(self, name: str) -> OriginWord:
        """The origin of one parameter."""
        if self.source is None or name in self.unknown:
            return "unknown"
        return "new" if name in self.new else "pretrained"

    def filled(self, names: frozenset[str]) -> Origin:
        """The same where a folder of adapters filled some parameters; what those replace is not run."""
        new = frozenset(name for name in self.new - names if ".original_module." not in name)
        return replace(self, new=new, unknown=self.unknown - names)


def origin_of(model: nn.Module) -> Origin:
    """Find out where the parameters of a model come from, by the checkpoint that it names.

    Args:
        model: A model, in wrappers or not; one of transformers knows its checkpoint when ``from_pretrained`` made it.

    Returns:
        The origin; with `source` None where no checkpoint is known or it can no longer be read. What adapters
        added is ``unknown``: their own checkpoint leaves no trace in the model.
    """
    from transformers import PreTrainedModel

    core = unwrap(model).core
    name = getattr(core, "name_or_path", "")
    # A model built from a checkpoint's configuration names the checkpoint too, but read nothing from it.
    loaded = was_loaded(core)
    if not isinstance(core, PreTrainedModel) or not name or not loaded:
        return Origin(None)
    try:
        headers = read_headers(locate(name))
    except ModelError:
        return Origin(None)
    return match(model, headers, name)


def match(model: nn.Module, headers: dict[str, torch.Tensor], source: str) -> Origin:
    """Match a checkpoint's tensors with a model's parameters.

    The loader of transformers itself does the matching, on tensors without values: so prefixes, renamed,
    split and merged weights are told exactly as when the model is really loaded.

    Args:
        model: A model of transformers, in wrappers or not; it is not changed.
        headers: The checkpoint's tensors, on the meta device.
        source: The checkpoint's name.
    """
    unwrapped = unwrap(model)
    found, shapes = _matched(cast("PreTrainedModel", unwrapped.core), headers, source)
    adapters = kinds_of(model)["adapters"]
    own = {outer: own_name(outer, unwrapped.prefix) for outer, _ in model.named_parameters()}
    # What was put in the place of a part since loading is new: it has another shape, or a name that the class has not.
    reshaped = {
        outer
        for outer, parameter in model.named_parameters()
        if own[outer] in shapes and parameter.is_floating_point() and parameter.shape != shapes[own[outer]]
    }
    foreign = {outer for outer, inner in own.items() if inner not in shapes}
    return Origin(
        found.source,
        new=frozenset(outer for outer, inner in own.items() if inner in found.new) | reshaped | (foreign - adapters),
        unused=found.unused,
        mismatched=frozenset(outer for outer, inner in own.items() if inner in found.mismatched) | reshaped,
        unknown=frozenset(foreign & adapters),
    )


def _matched(
    model: PreTrainedModel, headers: dict[str, torch.Tensor], source: str
) -> tuple[Origin, dict[str, torch.Size]]:
    """The origin of a model as its class and configuration make it, and the shapes of its parameters."""
    config = copy.deepcopy(model.config)
    quantised = hasattr(config, "quantization_config")
    if quantised:  # its loader wants the library and the device that the weights were quantised for
        del config.quantization_config
    with quiet():
        loaded = cast("Any", type(model)).from_pretrained(
            None,
            config=config,
            state_dict=headers,
            device_map={"": "meta"},
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    fresh: PreTrainedModel = loaded[0]
    report: dict[str, Any] = loaded[1]
    mismatched = {entry[0] for entry in report["mismatched_keys"]}
    # Older releases saved tables that the model makes itself, and some of transformers 5 count them among the unused.
    tables = {name.removeprefix(f"{fresh.base_model_prefix}.") for name, _ in fresh.named_buffers()}
    unused = {name for name in report["unexpected_keys"] if name not in tables}
    new = set(report["missing_keys"]) | mismatched
    if quantised:  # packed weights have other shapes, and other names within the same module
        packed = {name.rpartition(".")[0] for name in unused}
        new = {name for name in report["missing_keys"] if name.rpartition(".")[0] not in packed}
        unused = {name for name in unused if name.rpartition(".")[0] not in dict(fresh.named_modules())}
        mismatched = set()
    # A tied tensor is there as soon as one of its names is.
    for group in tied_groups(fresh):
        if not new.issuperset(group):
            new.difference_update(group)
    names = {name: parameter.shape for name, parameter in fresh.named_parameters()}
    origin = Origin(
        source,
        new=frozenset(new & names.keys()),
        unused=tuple(sorted(unused)),
        mismatched=frozenset(mismatched & names.keys()),
    )
    return origin, names


def own_name(outer: str, prefix: str) -> str:
    """The name that a parameter has in the model itself: without wrappers, and without what PEFT puts into it."""
    name = outer.removeprefix(prefix)
    name = name.replace(".base_layer.", ".").replace(".original_module.", ".")
    return re.sub(r"\.modules_to_save\.[^.]+\.", ".", name)
