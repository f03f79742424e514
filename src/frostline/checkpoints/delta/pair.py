"""Which tensor of one checkpoint is which of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

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


def pair(
    base: Iterable[str],
    tuned: Iterable[str],
    base_place: Callable[[str], str | None] = lambda _: None,
    tuned_place: Callable[[str], str | None] = lambda _: None,
) -> Pairing:
    """Pair the tensors of two checkpoints by their names.

    Tensors that are one parameter of a model belong together, and so do equal names, old names of LayerNorm weights
    read as today's. Among the names that are left, the one prefix (such as ``bert.``) that added to, or taken from, the
    base's names pairs the most of them is applied.

    Args:
        base: The names in the base.
        tuned: The names in the tuned checkpoint.
        base_place: Says which parameter of the model a tensor of the base is as it stands; None where it is none.
        tuned_place: Likewise, of the tuned checkpoint.
    """
    firsts, seconds = list(base), list(tuned)
    base_of = _joined(firsts, seconds, base_place, tuned_place)
    for spelling in (lambda name: name, modern):
        left, right = _left(firsts, seconds, base_of)
        found = _joined(left, right, spelling, spelling)
        # Some renamings shift names, so that one and the same stands for two parameters.
        base_of |= {
            name: old
            for name, old in found.items()
            if None in (places := {base_place(old), tuned_place(name)}) or len(places) == 1
        }
    left, right = _left(firsts, seconds, base_of)
    base_of |= _prefixed(left, right)
    added, removed = _common_prefix(base_of)
    left, right = _left(firsts, seconds, base_of)
    return Pairing(base_of, missing=tuple(left), extra=tuple(right), added=added, removed=removed)


def _joined(
    left: Iterable[str],
    right: Iterable[str],
    left_key: Callable[[str], str | None],
    right_key: Callable[[str], str | None],
) -> dict[str, str]:
    """Per name on the right, the one on the left that has the same key."""
    known = {key: name for name in left if (key := left_key(name)) is not None}
    return {name: known[key] for name in right if (key := right_key(name)) in known and key is not None}


def _left(firsts: list[str], seconds: list[str], base_of: dict[str, str]) -> tuple[list[str], list[str]]:
    """The names that are not paired."""
    used = set(base_of.values())
    return [name for name in firsts if name not in used], [name for name in seconds if name not in base_of]


def _prefixed(left: list[str], right: list[str]) -> dict[str, str]:
    """Per name on the right, the one on the left that it is but for a prefix."""
    firsts = {modern(name): name for name in left}
    seconds = {modern(name): name for name in right}
    added, removed = _prefix(firsts, seconds), _prefix(seconds, firsts)
    if len(removed) > len(added):
        return {seconds[short]: firsts[long] for short, long in removed.items()}
    return {seconds[long]: firsts[short] for short, long in added.items()}


def _prefix(short: Iterable[str], long: Iterable[str]) -> dict[str, str]:
    """The short names that the one prefix that does so most often turns into long ones."""
    wanted, offered = list(short), dict.fromkeys(long)
    found = set(wanted)
    votes: Counter[str] = Counter()
    for name in offered:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            if ".".join(parts[depth:]) in found:
                votes[".".join(parts[:depth]) + "."] += 1
    if not votes:
        return {}
    prefix = min(votes, key=lambda known: (-votes[known], known))
    return {name: prefix + name for name in wanted if prefix + name in offered}


def _common_prefix(base_of: dict[str, str]) -> tuple[str, str]:
    """What most of the renamed tensors have before the base's names; or what those have before."""
    added: Counter[str] = Counter()
    removed: Counter[str] = Counter()
    for tuned, base in base_of.items():
        second, first = modern(tuned), modern(base)
        if second != first and second.endswith(f".{first}"):
            added[second.removesuffix(first)] += 1
        elif second != first and first.endswith(f".{second}"):
            removed[first.removesuffix(second)] += 1
    votes = [(count, prefix, "") for prefix, count in added.items()]
    votes += [(count, "", prefix) for prefix, count in removed.items()]
    _, gained, lost = max(votes, default=(0, "", ""))
    return gained, lost
