"""Diff: what became of each tensor between two checkpoints, streamed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal

from frostline.anatomy.modelmap import ModelMap
from frostline.checkpoints.classifier import load_config, skeleton
from frostline.checkpoints.comparing import Change, Likeness, liken
from frostline.checkpoints.pairing import Pairing, Places, pair
from frostline.checkpoints.source import Source, locate
from frostline.checkpoints.stored import Checkpoint, StoredTensor
from frostline.errors import ModelError
from frostline.plan.recipe import compile_selector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from transformers import PreTrainedModel

Verdict = Literal["identical", "changed", "cast", "reshaped", "missing", "extra"]
VERDICTS: tuple[Verdict, ...] = ("identical", "changed", "cast", "reshaped", "missing", "extra")
UNPLACED = "unplaced"


@dataclass(frozen=True, slots=True)
class TensorDiff:
    """What became of one tensor.

    Attributes:
        name: Its name in the tuned checkpoint; in the base, where it is missing from the tuned one.
        base_name: Its name in the base; None where it is extra.
        unit: The unit it is in; ``unplaced`` where the model has no place for it.
        parameter: The name of the model's parameter or buffer that it is; None where it is unplaced.
        verdict: ``identical``: equal bit by bit. ``changed``: of one shape, and not equal. ``cast``: casting the
            base's tensor to the tuned one's dtype gives the tuned one bit by bit. ``reshaped``: of two shapes.
            ``missing``: in the base only. ``extra``: in the tuned one only.
        rows: Rows that were compared, where it is reshaped in its first axis only (resized embeddings); else None.
        common: What became of those rows.
        base_shape: Its shape in the base; None where it is extra.
        tuned_shape: Its shape in the tuned checkpoint; None where it is missing.
        base_dtype: Its dtype in the base, such as ``float32``; likewise.
        tuned_dtype: Its dtype in the tuned checkpoint; likewise.
        change: How far both are apart in what was compared; None where nothing was.
    """

    name: str
    base_name: str | None
    unit: str
    parameter: str | None
    verdict: Verdict
    rows: int | None = None
    common: Likeness | None = None
    base_shape: tuple[int, ...] | None = None
    tuned_shape: tuple[int, ...] | None = None
    base_dtype: str | None = None
    tuned_dtype: str | None = None
    change: Change | None = None

    @property
    def renamed(self) -> bool:
        """Whether it has another name in the base."""
        return self.base_name not in (None, self.name)

    @property
    def note(self) -> str:
        """What the verdict alone does not say: the base's name, shapes, dtypes."""
        notes = []
        if self.base_dtype and self.tuned_dtype and self.base_dtype != self.tuned_dtype:
            notes.append(f"{self.base_dtype} to {self.tuned_dtype}")
        if self.verdict == "reshaped":
            rows = "" if self.rows is None else f", the {self.rows:,} common rows {self.common}"
            notes.append(f"{list(self.base_shape or ())} to {list(self.tuned_shape or ())}{rows}")
        if self.renamed:
            notes.append(f"in the base {self.base_name}")
        return "; ".join(notes)

    def to_dict(self) -> dict[str, Any]:
        """The row as plain values."""
        return {
            "name": self.name,
            "base_name": self.base_name,
            "unit": self.unit,
            "parameter": self.parameter,
            "verdict": self.verdict,
            "renamed": self.renamed,
            "rows": self.rows,
            "common": self.common,
            "base_shape": None if self.base_shape is None else list(self.base_shape),
            "tuned_shape": None if self.tuned_shape is None else list(self.tuned_shape),
            "base_dtype": self.base_dtype,
            "tuned_dtype": self.tuned_dtype,
            **_figures(self.change),
        }


@dataclass(frozen=True, slots=True)
class UnitDiff:
    """What became of one unit.

    Attributes:
        name: The unit, or ``unplaced``.
        verdict: The verdict on its tensors where they share one; ``partly changed`` where some are identical and the
            others changed; else ``mixed``.
        counts: Per verdict that occurs, its number of tensors.
        change: How far base and tuned are apart, over those tensors of the unit that differ; None where none does.
    """

    name: str
    verdict: str
    counts: dict[Verdict, int]
    change: Change | None

    @property
    def tensors(self) -> int:
        """Number of tensors."""
        return sum(self.counts.values())

    def to_dict(self) -> dict[str, Any]:
        """The row as plain values."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "tensors": self.tensors,
            "counts": dict(self.counts),
            **_figures(self.change),
        }


@dataclass(frozen=True, slots=True)
class Violation:
    """A parameter that was expected to be frozen, or to have moved, and was not.

    Attributes:
        name: The parameter's name in the model.
        expected: ``frozen`` or ``moved``.
        found: What became of it instead: the tensor's verdict, or ``absent`` where neither checkpoint holds it.
    """

    name: str
    expected: Literal["frozen", "moved"]
    found: str

    def __str__(self) -> str:
        return f"{self.name} was expected {'frozen' if self.expected == 'frozen' else 'to move'}: {self.found}"

    def to_dict(self) -> dict[str, Any]:
        """The violation as plain values."""
        return {"name": self.name, "expected": self.expected, "found": self.found}


@dataclass(frozen=True, slots=True)
class Diff:
    """Two checkpoints, compared.

    Attributes:
        base: The base, as given.
        tuned: The tuned one, as given.
        model_class: The class whose units are named; None where no classifier can be made of the configuration.
        tensors: One row per tensor, unit by unit.
        units: One row per unit in depth order, ``unplaced`` last.
        added: What the tuned one puts before the base's names; ``""`` for nothing.
        removed: What the base puts before the tuned one's names.
        violations: What was expected and is not so.
        note: Why no units are named, where none are.
    """

    base: str
    tuned: str
    model_class: str | None
    tensors: tuple[TensorDiff, ...]
    units: tuple[UnitDiff, ...]
    added: str = ""
    removed: str = ""
    violations: tuple[Violation, ...] = ()
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether everything is as it was expected."""
        return not self.violations

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        counts = Counter(tensor.verdict for tensor in self.tensors)
        said = ", ".join(f"{counts[word]} {word}" for word in VERDICTS if counts[word])
        if counts["identical"] == len(self.tensors):
            said = f"all {len(self.tensors)} identical"
        names = f"; names have gained '{self.added}'" if self.added else ""
        names += f"; names have lost '{self.removed}'" if self.removed else ""
        return f"{len(self.tensors)} tensors: {said}{names}."

    def __str__(self) -> str:
        width = max((len(unit.name) for unit in self.units), default=0)
        lines = [self.verdict]
        lines += [f"{unit.name:<{width}}  {unit.verdict} ({unit.tensors})" for unit in reversed(self.units)]
        lines += [self.note] if self.note else []
        lines += [f"Violation: {violation}" for violation in self.violations]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The diff as plain values; a figure that is no finite number stays as Python has it."""
        return {
            "base": self.base,
            "tuned": self.tuned,
            "model_class": self.model_class,
            "verdict": self.verdict,
            "ok": self.ok,
            "added": self.added,
            "removed": self.removed,
            "note": self.note,
            "violations": [violation.to_dict() for violation in self.violations],
            "units": [unit.to_dict() for unit in self.units],
            "tensors": [tensor.to_dict() for tensor in self.tensors],
        }


def diff(
    base: str | PathLike[str],
    tuned: str | PathLike[str],
    *,
    expect_frozen: str | None = None,
    expect_moved: str | None = None,
    allow_cast: bool = False,
) -> Diff:
    """Compare two checkpoints, tensor by tensor, without loading either model.

    Args:
        base: The checkpoint that training started from: a folder or a hub name.
        tuned: What it ended with, likewise.
        expect_frozen: A selector of the parameters that must be identical.
        expect_moved: A selector of the parameters of which none may be identical or only cast.
        allow_cast: Whether a parameter that is only cast counts as frozen.

    Returns:
        The comparison; what is not as it was expected is in its `violations`.

    Raises:
        ModelError: If a checkpoint cannot be found or read, or parameters are expected of one that is no classifier.
        SelectorError: If a selector does not fit the model.
    """
    model, note = _skeleton(locate(fspath(tuned)), locate(fspath(base)))
    if model is None and (expect_frozen is not None or expect_moved is not None):
        raise ModelError(note)
    anatomy = ModelMap.of(model) if model is not None else None
    frozen = _selected(model, anatomy, expect_frozen)  # a selector that does not fit is said before anything is read
    moved = _selected(model, anatomy, expect_moved)
    first, second = Checkpoint.open(base), Checkpoint.open(tuned)
    pairing = pair_checkpoints(first, second)
    places = Places(model) if model is not None else None
    rows = [_placed(row, places, anatomy) for row in _rows(first, second, pairing)]
    order = [unit.name for unit in anatomy.units] if anatomy is not None else []
    units = [_unit(name, [row for row in rows if row.unit == name]) for name in (*order, UNPLACED)]
    return Diff(
        base=first.source.name,
        tuned=second.source.name,
        model_class=anatomy.model_class if anatomy is not None else None,
        tensors=tuple(sorted(rows, key=lambda row: order.index(row.unit) if row.unit in order else len(order))),
        units=tuple(unit for unit in units if unit.tensors),
        added=pairing.added,
        removed=pairing.removed,
        violations=tuple(_violations(rows, frozen, moved, anatomy, allow_cast=allow_cast)),
        note=note,
    )


def _skeleton(*sources: Source) -> tuple[PreTrainedModel | None, str]:
    """The classifier that the first configuration makes that makes one; else why none does."""
    reason = ""
    for source in sources:
        try:
            return skeleton(load_config(source), source.name), ""
        except ModelError as error:
            reason = reason or f"No units can be named. {error}".replace("\n", " ")
    return None, reason


def _selected(model: PreTrainedModel | None, anatomy: ModelMap | None, selector: str | None) -> tuple[str, ...]:
    if model is None or anatomy is None or selector is None:
        return ()
    return compile_selector(model, anatomy, selector).names


def pair_checkpoints(base: Checkpoint, tuned: Checkpoint) -> Pairing:
    """Pair the tensors of two checkpoints; a further name of a tensor that is paired is neither missing nor extra."""
    pairing = pair(base.tensors, tuned.tensors)
    firsts = {base.tensors[name].name for name in pairing.base_of.values()}
    seconds = {tuned.tensors[name].name for name in pairing.base_of}
    return Pairing(
        pairing.base_of,
        missing=tuple(name for name in pairing.missing if base.tensors[name].name not in firsts),
        extra=tuple(name for name in pairing.extra if tuned.tensors[name].name not in seconds),
        added=pairing.added,
        removed=pairing.removed,
    )


def _rows(base: Checkpoint, tuned: Checkpoint, pairing: Pairing) -> Iterator[TensorDiff]:
    seen: set[tuple[str, str]] = set()
    for name, base_name in pairing.base_of.items():
        one, other = base.tensors[base_name], tuned.tensors[name]
        if (one.name, other.name) not in seen:  # tied on both sides: one tensor
            seen.add((one.name, other.name))
            yield _compared(name, base_name, one, other)
    for name in pairing.missing:
        one = base.tensors[name]
        yield TensorDiff(name, name, "", None, "missing", base_shape=one.shape, base_dtype=_word(one))
    for name in pairing.extra:
        other = tuned.tensors[name]
        yield TensorDiff(name, None, "", None, "extra", tuned_shape=other.shape, tuned_dtype=_word(other))


def _compared(name: str, base_name: str, one: StoredTensor, other: StoredTensor) -> TensorDiff:
    rows: int | None = None
    common: Likeness | None = None
    change: Change | None = None
    verdict: Verdict = "reshaped"
    if one.shape == other.shape:
        verdict, change = liken(one, other, one.elements)
    elif one.shape and other.shape and one.shape[1:] == other.shape[1:]:
        rows = min(one.shape[0], other.shape[0])
        shorter = one if one.shape[0] == rows else other
        common, change = liken(one, other, shorter.elements)
    return TensorDiff(
        name, base_name, "", None, verdict, rows, common, one.shape, other.shape, _word(one), _word(other), change
    )


def _word(tensor: StoredTensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _placed(row: TensorDiff, places: Places | None, anatomy: ModelMap | None) -> TensorDiff:
    from dataclasses import replace

    if places is None or anatomy is None:
        return replace(row, unit=UNPLACED)
    parameter = places(row.name) or (places(row.base_name) if row.base_name else None)
    return replace(row, unit=anatomy.unit_of[parameter].name if parameter else UNPLACED, parameter=parameter)


def _unit(name: str, rows: Sequence[TensorDiff]) -> UnitDiff:
    counts = Counter(row.verdict for row in rows)
    words = [word for word in VERDICTS if counts[word]]
    if len(words) == 1:
        verdict: str = words[0]
    else:
        verdict = "partly changed" if set(words) == {"identical", "changed"} else "mixed"
    changes = [row.change for row in rows if row.change is not None and "identical" not in (row.verdict, row.common)]
    return UnitDiff(name, verdict, {word: counts[word] for word in words}, sum(changes, Change()) if changes else None)


def _violations(
    rows: Iterable[TensorDiff],
    frozen: Iterable[str],
    moved: Iterable[str],
    anatomy: ModelMap | None,
    *,
    allow_cast: bool,
) -> Iterator[Violation]:
    firsts = {name: group[0] for group in (anatomy.tied if anatomy is not None else ()) for name in group}
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.parameter is not None:
            found.setdefault(firsts.get(row.parameter, row.parameter), []).append(row.verdict)
    still = {"identical", "cast"} if allow_cast else {"identical"}
    for name in frozen:
        words = found.get(name, ["absent"])
        if not still.issuperset(words):
            yield Violation(name, "frozen", ", ".join(word for word in words if word not in still))
    for name in moved:
        words = found.get(name, ["absent"])
        if not {"changed", "reshaped", "extra"}.issuperset(words):
            yield Violation(name, "moved", ", ".join(words))


def _figures(change: Change | None) -> dict[str, float | None]:
    if change is None:
        return {"max_abs": None, "relative_l2": None, "cosine": None}
    return {"max_abs": change.max_abs, "relative_l2": change.relative_l2, "cosine": change.cosine}
