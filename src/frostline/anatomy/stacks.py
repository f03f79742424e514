"""Finding the stacks: the ordered chains of repeated layers that a backbone is built from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

# Lists of small tables inside embeddings (MarkupLM's tag and subscript tables) are no layers.
_EMBEDDINGS = re.compile(r"(^|[._])embed(ding)?s?([._]|$)", re.IGNORECASE)
# From this share of the largest list's parameters on, another list is a tower of its own (siamese models).
_ALIKE = 0.5
# Towers for what is not text; their layers are a stack of their own beside the text's.
_MODALITIES = {
    "vision": re.compile(r"vis(ion|ual)|image", re.IGNORECASE),
    "audio": re.compile(r"audio|speech", re.IGNORECASE),
}


@dataclass(frozen=True, slots=True)
class Stack:
    """One chain of layers.

    Attributes:
        name: ``""`` for the only stack, or for that of the text beside towers for other input; ``"encoder"`` and
            ``"decoder"`` where there are both; ``"vision"`` or ``"audio"`` for a tower beside a text's stack;
            a word of the path, or the path, for towers of like size.
        paths: The module paths of the lists it is read from. More than one where a model keeps
            the parts of its layers in parallel lists (XLM, FlauBERT).
        layers: Per layer, the paths of the modules that make it up.
    """

    name: str
    paths: tuple[str, ...]
    layers: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.layers)


@dataclass(frozen=True, slots=True)
class _Chain:
    """Candidate for a stack; lists of lists are flattened."""

    paths: tuple[str, ...]
    layers: tuple[tuple[str, ...], ...]
    size: int  # parameters

    @property
    def modality(self) -> str:
        return next((name for name, words in _MODALITIES.items() if words.search(self.paths[0])), "")


def find_stacks(model: nn.Module, base_path: str) -> tuple[Stack, ...]:
    """Find the stacks of a model.

    Candidates are the lists of modules with parameters that lie in no other such list. The largest one is the
    stack; beside it stands the other half of an encoder and a decoder, another tower of like size, and the
    largest list of each tower for another kind of input.

    Args:
        model: The model.
        base_path: Module path of the backbone within it; ``""`` where the model is its own backbone.

    Returns:
        The stacks in the order in which the model registers them; empty where there is none.
    """
    chains = _chains(model, base_path)
    text = [chain for chain in chains if not chain.modality]
    if not text:  # a model for images or sound only: its tower is the stack
        largest = max(chains, key=lambda chain: chain.size, default=None)
        return (Stack("", largest.paths, largest.layers),) if largest else ()
    named = _halves(text)
    for modality in _MODALITIES:
        tower = [chain for chain in chains if chain.modality == modality]
        if tower:
            named.append((modality, max(tower, key=lambda chain: chain.size)))
    order = {chain.paths: place for place, chain in enumerate(chains)}
    named.sort(key=lambda pair: order[pair[1].paths])
    return tuple(Stack(name, chain.paths, chain.layers) for name, chain in named)


def _halves(chains: Sequence[_Chain]) -> list[tuple[str, _Chain]]:
    """The stack of the text; both where the model has an encoder and a decoder, or towers of like size."""
    largest = max(chains, key=lambda chain: chain.size)
    encoder, decoder = _under(chains, "encoder"), _under(chains, "decoder")
    if encoder is not None and decoder is not None and largest in {encoder, decoder}:
        return [("encoder", encoder), ("decoder", decoder)]
    alike = [chain for chain in chains if chain.size >= _ALIKE * largest.size and len(chain.layers) > 1]
    if len(alike) < 2:
        return [("", largest)]
    return list(zip(_tell_apart([chain.paths[0] for chain in alike]), alike, strict=True))


def _under(chains: Sequence[_Chain], half: str) -> _Chain | None:
    """The largest chain in one half; a decoder may be built from an encoder's parts (``decoder.bert.encoder``)."""
    found = [chain for chain in chains if _first_of({"encoder", "decoder"}, chain.paths[0]) == half]
    return max(found, key=lambda chain: chain.size, default=None)


def _first_of(words: set[str], path: str) -> str | None:
    return next((word for word in path.split(".") if word in words), None)


def _tell_apart(paths: list[str]) -> list[str]:
    """Give each path the word that no other one has, or else the path itself."""
    names = []
    for path in paths:
        others = {word for other in paths if other != path for word in other.split(".")}
        unique = [word for word in path.split(".") if word not in others and not word.isdigit()]
        names.append(unique[0] if unique else path)
    return names


def _chains(model: nn.Module, base_path: str) -> list[_Chain]:
    from torch import nn

    prefix = f"{base_path}." if base_path else ""
    lists: list[tuple[str, tuple[str, ...], bool]] = []  # path, layers, whether the list itself is called
    taken: set[int] = set()  # layers of the lists found so far; another list may hold them as well
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential) or not path.startswith(prefix):
            continue
        if _EMBEDDINGS.search(path.removeprefix(prefix)):
            continue
        if any(not known or path.startswith(f"{known}.") for known, _, _ in lists):
            continue  # inside a layer of a list already taken
        layers = tuple(layer for layer in _leaf_layers(module, path) if id(model.get_submodule(layer)) not in taken)
        called = isinstance(module, nn.Sequential)
        if layers and (not called or _is_repeated(model, layers)):
            lists.append((path, layers, called))
            taken |= {id(model.get_submodule(layer)) for layer in layers}
    return [_measured(model, paths, layers) for paths, layers in _joined(model, lists)]


def _leaf_layers(module: nn.Module, path: str) -> tuple[str, ...]:
    """Paths of the layers in a list, lists of lists flattened in order (Funnel's blocks)."""
    from torch import nn

    found: list[str] = []
    for name, child in module.named_children():
        child_path = f"{path}.{name}" if path else name  # the list may be the model itself
        if isinstance(child, nn.ModuleList):
            found += _leaf_layers(child, child_path)
        elif any(True for _ in child.parameters()):
            found.append(child_path)
    return tuple(found)


def _kinds(model: nn.Module, layers: Iterable[str]) -> list[str]:
    return [type(model.get_submodule(layer)).__name__ for layer in layers]


def _is_repeated(model: nn.Module, layers: tuple[str, ...]) -> bool:
    """Tell a chain of layers from a mere sequence of different modules."""
    kinds = _kinds(model, layers)
    return len(kinds) > 1 and len(set(kinds)) < len(kinds)


def _joined(
    model: nn.Module, lists: Iterable[tuple[str, tuple[str, ...], bool]]
) -> list[tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]]:
    """Join lists that stand beside each other under one parent.

    ``nn.ModuleList`` of equal length are parts of the same layers, used side by side (XLM). ``nn.Sequential`` of the
    same kinds of blocks run one after another (the stages of a ResNet).
    """
    joined: list[tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]] = []

    def family(entry: tuple[str, tuple[str, ...], bool]) -> tuple[str, bool, object]:
        path, layers, called = entry
        return path.rpartition(".")[0], called, frozenset(_kinds(model, layers)) if called else len(layers)

    for (_, called, _), group in groupby(sorted(lists, key=lambda entry: str(family(entry))), key=family):
        members = list(group)
        paths = tuple(path for path, _, _ in members)
        if called:
            joined.append((paths, tuple((layer,) for _, own, _ in members for layer in own)))
        elif _are_parts(model, members):
            joined.append((paths, tuple(zip(*(own for _, own, _ in members), strict=True))))
        else:
            joined += [((path,), tuple((layer,) for layer in own)) for path, own, _ in members]
    rank = {path: place for place, (path, _) in enumerate(model.named_modules())}
    return sorted(joined, key=lambda pair: rank[pair[0][0]])


def _are_parts(model: nn.Module, lists: Sequence[tuple[str, tuple[str, ...], bool]]) -> bool:
    """Whether lists of equal length hold different parts of the same layers, rather than layers of two towers."""
    names = {path.rpartition(".")[2].lower() for path, _, _ in lists}
    halves = any(name.startswith("enc") for name in names) and any(name.startswith("dec") for name in names)
    return not halves and len({kind for _, layers, _ in lists for kind in _kinds(model, layers)}) > 1


def _measured(model: nn.Module, paths: tuple[str, ...], layers: tuple[tuple[str, ...], ...]) -> _Chain:
    modules = [model.get_submodule(part) for layer in layers for part in layer]
    return _Chain(paths, layers, sum(parameter.numel() for module in modules for parameter in module.parameters()))
