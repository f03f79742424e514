"""Finding the stacks: the ordered chains of repeated layers that a backbone is built from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# A chain beside the largest one counts as a stack of its own from this share of the largest one's parameters.
_MINOR_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Stack:
    """One chain of layers.

    Attributes:
        name: ``""`` where the model has one stack, else the word of its path that tells it from the others
            (``"encoder"``, ``"decoder"``, ``"vision_tower"`` …); the whole path where no single word does.
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
    """Candidate for a stack: one list of modules, nested lists flattened."""

    path: str
    children: tuple[str, ...]
    size: int  # parameters


def find_stacks(model: nn.Module, base_path: str) -> tuple[Stack, ...]:
    """Find the stacks of a model.

    A stack is a list of modules with parameters that lies in no other such list. The largest one always
    counts; another one counts when it holds a fair share of the parameters. Lists of equal length beside
    each other under one parent are parts of the same layers.

    Args:
        model: The model.
        base_path: Module path of the backbone within it; ``""`` where the model is its own backbone.

    Returns:
        The stacks in the order in which the model registers them; empty where there is none.
    """
    merged = _merge_parallel(_chains(model, base_path))
    if not merged:
        return ()
    largest = max(size for _, _, size in merged)
    kept = [
        (paths, layers)
        for paths, layers, size in merged
        if size == largest or (size >= _MINOR_SHARE * largest and len(layers) > 1)
    ]
    names = _tell_apart([paths[0] for paths, _ in kept])
    return tuple(Stack(name, paths, layers) for name, (paths, layers) in zip(names, kept, strict=True))


def _chains(model: nn.Module, base_path: str) -> list[_Chain]:
    from torch import nn

    prefix = f"{base_path}." if base_path else ""
    chains: list[_Chain] = []
    taken: set[int] = set()  # layers of the lists found so far; another list may hold them as well
    for path, module in model.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or not path.startswith(prefix):
            continue
        if any(not chain.path or path.startswith(f"{chain.path}.") for chain in chains):
            continue  # inside a layer of a list already taken
        children = tuple(child for child in _leaf_layers(module, path) if id(model.get_submodule(child)) not in taken)
        size = sum(parameter.numel() for parameter in module.parameters())
        if size and _is_repeated(module, children, model):
            chains.append(_Chain(path, children, size))
            taken |= {id(model.get_submodule(child)) for child in children}
    return chains


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


def _is_repeated(module: nn.Module, children: tuple[str, ...], model: nn.Module) -> bool:
    """Tell a chain of layers from a mere sequence of different modules."""
    from torch import nn

    if not children:
        return False
    if isinstance(module, nn.ModuleList):
        return True
    kinds = [type(model.get_submodule(child)).__name__ for child in children]
    return len(kinds) > 1 and len(set(kinds)) < len(kinds)


def _merge_parallel(
    chains: list[_Chain],
) -> list[tuple[tuple[str, ...], tuple[tuple[str, ...], ...], int]]:
    """Join lists of equal length under one parent into one chain of layers."""
    groups: dict[tuple[str, int], list[_Chain]] = {}
    for chain in chains:
        parent = chain.path.rpartition(".")[0]
        groups.setdefault((parent, len(chain.children)), []).append(chain)
    return [
        (
            tuple(chain.path for chain in group),
            tuple(zip(*(chain.children for chain in group), strict=True)),
            sum(chain.size for chain in group),
        )
        for group in groups.values()
    ]


def _tell_apart(paths: list[str]) -> list[str]:
    """Give each path the word that no other one has, or else the path itself; ``""`` where there is only one."""
    if len(paths) == 1:
        return [""]
    words = [[word for word in re.split(r"[.]", path) if not word.isdigit()] for path in paths]
    names = []
    for path, own in zip(paths, words, strict=True):
        others = [set(other) for other in words if other is not own]
        unique = [word for word in own if not any(word in other for other in others)]
        names.append(unique[0] if unique else path)
    return names
