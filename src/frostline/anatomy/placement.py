"""Which unit a tensor is in: by the module that holds it, and where that stands around the stacks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

from frostline.anatomy.wrappers import unwrap
from frostline.base.modules import beginnings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from frostline.anatomy.stacks import Stack

UnitKind = Literal["embeddings", "layer", "norm", "pooler", "other", "head"]


@dataclass(frozen=True, slots=True)
class Place:
    """A unit's identity: its kind, the stack it goes with (``""`` for the only one), a layer's number."""

    kind: UnitKind
    stack: str
    index: int | None


_NAME = re.compile(r"(?:(?P<stack>.+) )?(?P<kind>[a-z]+)(?: (?P<index>\d+))?")


def place_named(name: str) -> Place:
    """The place of a unit by its name, such as ``decoder layer 3``."""
    parts = _NAME.fullmatch(name)
    if parts is None or parts["kind"] not in get_args(UnitKind):
        return Place("other", "", None)
    index = parts["index"]
    return Place(cast("UnitKind", parts["kind"]), parts["stack"] or "", None if index is None else int(index))


# A normalisation behind the last layer, though registered before the first one (OPT, T5Gemma): told by its own name,
# or by the class of the module around it (Wav2Vec2 with `do_stable_layer_norm`).
_FINAL_NORM = re.compile(r"norm|final_\w*norm")
_FINAL_IN = "StableLayerNorm"

# What makes of a tower's output what the text's stack takes.
_JOINT = re.compile(r"projector|connector|merger")

_EMBEDDING_WORDS = {"wte", "wpe", "pos", "position", "positions", "patch", "embd"}

# Architectures in which a module's place and name say something else than the forward does.
_RULES: dict[str, tuple[tuple[str, UnitKind], ...]] = {
    # called embedding norms after those of BART, but applied behind the last layer
    "bigbird_pegasus": ((r"(encoder|decoder)\.layernorm_embedding\..*", "norm"),),
    "esm": ((r"encoder\.emb_layer_norm_after\..*", "norm"),),
    # normalises the relative position embeddings, before the first layer
    "deberta-v2": ((r"encoder\.LayerNorm\..*", "embeddings"),),
    # the task class hands its decoder to the base model
    "perceiver": ((r"decoder\..*", "head"),),
    # all for the image patches and the distances between boxes, before the first layer
    "layoutlmv3": ((r"(encoder\.rel_pos.*|LayerNorm\..*|norm\..*|cls_token|pos_embed|patch_embed\..*)", "embeddings"),),
}


def base_path(model: nn.Module) -> str:
    """Path of the backbone: what stands under ``base_model_prefix``, or a model of transformers in one's own module.

    Args:
        model: The outermost module; wrappers are looked through.

    Returns:
        The path; that of the model itself where it is its own backbone.
    """
    from transformers import PreTrainedModel

    unwrapped = unwrap(model)
    children = dict(unwrapped.core.named_children())
    prefix = getattr(unwrapped.core, "base_model_prefix", "")
    if prefix and prefix in children:
        return f"{unwrapped.prefix}{prefix}"
    inner = [name for name, child in children.items() if isinstance(child, PreTrainedModel)]
    if len(inner) != 1:  # of several (the halves of an encoder-decoder, two towers), none is the backbone alone
        return unwrapped.prefix.rstrip(".")
    held = children[inner[0]]
    below = held.base_model_prefix if isinstance(held, PreTrainedModel) else ""
    has_head = not isinstance(unwrapped.core, PreTrainedModel) and below in dict(held.named_children())
    return f"{unwrapped.prefix}{inner[0]}{f'.{below}' * has_head}"


class Placement:
    """Says which unit a tensor belongs to.

    Args:
        model: The outermost module.
        base: Path of its backbone.
        stacks: Its stacks.
    """

    def __init__(self, model: nn.Module, base: str, stacks: Sequence[Stack]) -> None:
        from transformers import PreTrainedModel

        unwrapped = unwrap(model)
        self._model = model
        self._base = f"{base}." if base else ""
        # A plain module is not split into a backbone and what a task class adds; its last parts are the head.
        # Nor is an encoder-decoder whose halves stand beside its head (T5ForConditionalGeneration).
        core_is_base = base == unwrapped.prefix.rstrip(".")
        is_own = not isinstance(unwrapped.core, PreTrainedModel)
        halves = [child for child in unwrapped.core.children() if isinstance(child, PreTrainedModel)]
        self._plain = core_is_base and (is_own or len(halves) > 1)
        # The only half of such a one has its table beside it (T5EncoderModel).
        self._table_beside = not core_is_base and not is_own
        config = getattr(unwrapped.core, "config", None)
        self._rules = _RULES.get(getattr(config, "model_type", ""), ())
        self._layers = {
            path: Place("layer", stack.name, index)
            for stack in stacks
            for index, layer in enumerate(stack.layers)
            for path in layer
        }
        self._rank = {path: rank for rank, (path, _) in enumerate(model.named_modules(remove_duplicate=False))}
        self._scopes = _scopes(stacks, base)
        self._spans = {
            stack.name: (self._rank[stack.layers[0][0]], self._rank[stack.layers[-1][-1]]) for stack in stacks
        }
        self._around = {ancestor for stack in stacks for path in stack.paths for ancestor in beginnings(path)[:-1]}
        self._tower = next((stack.name for stack in stacks if stack.name in {"vision", "audio"}), None)

    def __call__(self, name: str) -> Place:
        """Place a parameter or buffer by its name."""
        owner, _, leaf = name.rpartition(".")
        for path in reversed(beginnings(owner)):
            if path in self._layers:
                return self._layers[path]
        kind = self._kind(owner, leaf)
        if kind == "head":
            return Place("head", "", None)
        return Place(kind, self._section(owner, kind), None)

    def _section(self, owner: str, kind: UnitKind) -> str:
        """The stack that a part outside the layers goes with."""
        scope = self._scope(owner)
        if scope is not None:
            return scope
        return self._tower if self._tower is not None and kind == "other" else ""

    def _scope(self, owner: str) -> str | None:
        """The stack that a module stands with; None where it stands between several."""
        return next((self._scopes[path] for path in reversed(beginnings(owner)) if path in self._scopes), None)

    def _kind(self, owner: str, leaf: str) -> UnitKind:
        full = f"{owner}.{leaf}" if owner else leaf
        if not full.startswith(self._base):
            return self._outside(full, owner)
        inner = full.removeprefix(self._base)
        for pattern, kind in self._rules:
            if re.fullmatch(pattern, inner):
                return kind
        if self._tower is not None and self._scope(owner) is None and _JOINT.search(inner):
            return "other"  # goes with the tower
        words = re.split(r"[._]", inner.lower())
        if any(word.startswith("embed") or word == "emb" or word in _EMBEDDING_WORDS for word in words):
            return "embeddings"
        if any(word.startswith("pool") for word in words):
            return "pooler"
        return self._by_class_and_order(owner, leaf)

    def _outside(self, full: str, owner: str) -> UnitKind:
        """What stands outside the backbone: the head, but for tables and prompts that come before it."""
        is_prompt = full.startswith(("prompt_encoder.", "word_embeddings."))  # PEFT's, beside a wrapped model
        return "embeddings" if is_prompt or (self._table_beside and self._is_table(owner)) else "head"

    def _by_class_and_order(self, owner: str, leaf: str) -> UnitKind:
        from torch import nn

        module = self._model.get_submodule(owner)
        if isinstance(module, nn.Embedding):
            return "embeddings"
        if not self._spans:
            return "other"
        if f"{owner}." == self._base or not owner:
            return "embeddings" if leaf in dict(module.named_buffers(recurse=False)) else "other"
        first, last = self._spans.get(self._section(owner, "norm"), next(iter(self._spans.values())))
        rank = self._rank[owner]
        if "norm" in type(module).__name__.lower() and self._is_final(owner, behind=rank > last):
            return "norm"
        if rank < first:
            return "embeddings"
        return "head" if rank > last and self._plain else "other"

    def _is_table(self, owner: str) -> bool:
        """Whether a module is a table that stands before the backbone."""
        from torch import nn

        before = self._rank[owner] < self._rank[self._base.rstrip(".")]
        return before and isinstance(self._model.get_submodule(owner), nn.Embedding)

    def _is_final(self, norm: str, *, behind: bool) -> bool:
        """Whether a normalisation is applied behind the last layer; most, not all, are registered there."""
        parent, _, own = norm.rpartition(".")
        if parent not in self._around:
            return False
        around = type(self._model.get_submodule(parent)).__name__
        return behind or _FINAL_NORM.fullmatch(own) is not None or around.endswith(_FINAL_IN)


def _scopes(stacks: Sequence[Stack], base: str) -> dict[str, str]:
    """Per stack the outermost module that holds it and no other one; of the only stack, the backbone."""
    if len(stacks) == 1:
        return {base: stacks[0].name}
    scopes = {}
    for stack in stacks:
        others = {ancestor for other in stacks if other is not stack for ancestor in beginnings(other.paths[0])[:-1]}
        own = [path for path in beginnings(stack.paths[0])[:-1] if path not in others]
        if own:
            scopes[own[0]] = stack.name
    return scopes
