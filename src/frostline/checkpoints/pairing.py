"""Which tensor of one checkpoint is which of another, and which parameter of the model it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from transformers import PreTrainedModel

# Names of the first BERT checkpoints, which transformers reads as its own.
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


@dataclass(frozen=True, slots=True)
class Pairing:
    """Which tensors of two checkpoints belong together.

    Attributes:
        base_of: Per name in the second, the name in the first.
        missing: Names in the first that the second does not have.
        extra: Names in the second that the first does not have.
        added: What the second puts before the names of the first; ``""`` for nothing.
        removed: What the first puts before the names of the second.
    """

    base_of: dict[str, str]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    added: str = ""
    removed: str = ""


def modern(name: str) -> str:
    """The name that transformers gives a tensor today."""
    for old, new in _OLD_NAMES.items():
        if name == old or name.endswith(f".{old}"):
            return name.removesuffix(old) + new
    return name


def pair(base: Iterable[str], tuned: Iterable[str]) -> Pairing:
    """Pair the tensors of two checkpoints by their names.

    Equal names belong together, old names of LayerNorm weights read as today's. Among the names that are left, the
    one prefix (such as ``bert.``) that added to, or taken from, the base's names pairs the most of them is applied.
    """
    firsts = {modern(name): name for name in base}
    seconds = {modern(name): name for name in tuned}
    base_of = {seconds[name]: firsts[name] for name in seconds if name in firsts}
    left = [name for name in firsts if name not in seconds]
    right = [name for name in seconds if name not in firsts]
    added, added_pairs = _prefix(left, right)
    removed, removed_pairs = _prefix(right, left)
    if len(removed_pairs) > len(added_pairs):
        added, pairs = "", {long: short for short, long in removed_pairs.items()}
    else:
        removed, pairs = "", added_pairs
    base_of |= {seconds[second]: firsts[first] for first, second in pairs.items()}
    used = set(base_of.values())
    return Pairing(
        base_of,
        missing=tuple(name for name in firsts.values() if name not in used),
        extra=tuple(name for name in seconds.values() if name not in base_of),
        added=added,
        removed=removed,
    )


def _prefix(short: list[str], long: list[str]) -> tuple[str, dict[str, str]]:
    """The prefix that turns the most short names into long ones, and those that it turns."""
    wanted, offered = set(short), set(long)
    votes: Counter[str] = Counter()
    for name in long:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            if ".".join(parts[depth:]) in wanted:
                votes[".".join(parts[:depth]) + "."] += 1
    if not votes:
        return "", {}
    prefix = min(votes, key=lambda found: (-votes[found], found))
    return prefix, {name: prefix + name for name in short if prefix + name in offered}


class Places:
    """Finds the parameter or buffer of a model that a tensor of a checkpoint is for.

    Args:
        model: The model; on the meta device too.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._shapes = {
            name: tuple(tensor.shape)
            for named in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
            for name, tensor in named
        }
        self._prefix = f"{model.base_model_prefix}."

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every parameter and buffer, under each of its names."""
        return self._shapes

    def __call__(self, name: str) -> str | None:
        """The name in the model; None where the model has no place for the tensor."""
        name = modern(name)
        candidates = (name, self._prefix + name, name.removeprefix(self._prefix))
        return next((found for found in candidates if found in self._shapes), None)
