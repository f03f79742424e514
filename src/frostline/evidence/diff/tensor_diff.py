"""What became of each tensor between two checkpoints, streamed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from frostline.base.dtypes import dtype_word
from frostline.base.json import picked
from frostline.checkpoints.conversions import Part, Places
from frostline.checkpoints.delta.compare import Change, Likeness, liken, same_bits
from frostline.checkpoints.delta.pair import Pairing, pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

    from frostline.anatomy.modelmap import ModelMap
    from frostline.checkpoints.meter import Meter
    from frostline.checkpoints.tensor_files import Checkpoint, StoredTensor

Verdict = Literal["identical", "changed", "cast", "reshaped", "missing", "extra"]
VERDICTS: tuple[Verdict, ...] = ("identical", "changed", "cast", "reshaped", "missing", "extra")
UNPLACED = "unplaced"


@dataclass(frozen=True, slots=True)
class TensorDiff:
    """What became of one tensor.

    Attributes:
        name: Its name in the tuned checkpoint; in the base, where it is missing from the tuned one; in the model, where
            it is compared as loaded.
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
        as_loaded: Whether base and tuned store it in two forms, or together with other parameters, so that what the
            loader makes of both was compared.
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
    as_loaded: bool = False

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
        if self.as_loaded:
            notes.append("compared as loaded")
        return "; ".join(notes)

    def to_dict(self) -> dict[str, Any]:
        """The row as plain values."""
        placed = picked(self, "name", "base_name", "unit", "parameter", "verdict", "renamed", "as_loaded")
        compared = picked(self, "rows", "common", "base_shape", "tuned_shape", "base_dtype", "tuned_dtype")
        return placed | compared | figures(self.change)


def figures(change: Change | None) -> dict[str, float | None]:
    """The figures of a change as plain values."""
    names = ("max_abs", "relative_l2", "cosine")
    return dict.fromkeys(names) if change is None else picked(change, *names)


class Comparison:
    """Compares two checkpoints tensor by tensor.

    Args:
        base: The checkpoint that training started from.
        tuned: What it ended with.
        model: The classifier that both are of, without values; None where there is none.
        anatomy: Its anatomy, likewise.

    Attributes:
        pairing: Which tensors belong together.
    """

    def __init__(
        self, base: Checkpoint, tuned: Checkpoint, model: PreTrainedModel | None, anatomy: ModelMap | None
    ) -> None:
        self._base, self._tuned, self._anatomy = base, tuned, anatomy
        self._old = Places(model, base.tensors) if model is not None else None
        self._new = Places(model, tuned.tensors) if model is not None else None
        self.pairing = _paired(base, tuned, self._old, self._new)

    @property
    def bytes(self) -> int:
        """Size of what is compared: the tensors of the tuned checkpoint that have one in the base."""
        return sum(self._tuned.tensors[name].bytes for name in self.pairing.base_of)

    def rows(self, meter: Meter) -> Iterator[TensorDiff]:
        """Compare; one row per tensor.

        Args:
            meter: Is told how much was compared.
        """
        for row in self._rows(meter):
            names = (row.parameter,) if row.parameter else self._places_of(row)
            parameter = names[0] if names else None
            unit = self._anatomy.unit_of[parameter].name if self._anatomy is not None and parameter else UNPLACED
            yield replace(row, unit=unit, parameter=parameter)

    def _places_of(self, row: TensorDiff) -> tuple[str, ...]:
        new = self._new(row.name) if self._new is not None and row.tuned_shape is not None else ()
        return new or (self._old(row.base_name) if self._old is not None and row.base_name is not None else ())

    def _rows(self, meter: Meter) -> Iterator[TensorDiff]:
        seen: set[tuple[str, str]] = set()
        for name, base_name in self.pairing.base_of.items():
            one, other = self._base.tensors[base_name], self._tuned.tensors[name]
            meter.add(other.bytes)
            if (one.name, other.name) in seen:  # tied on both sides: one tensor
                continue
            seen.add((one.name, other.name))
            old, new = self._parts(base_name, name)
            if old is not None and new is not None and len(old.shapes) > 1 and len(new.shapes) > 1:
                yield from _cut(old, new, one, other)
            else:
                yield _compared(name, base_name, one, other)
        missing, extra = dict.fromkeys(self.pairing.missing), dict.fromkeys(self.pairing.extra)
        for old, new in self._two_forms():
            for name in old.sources:
                missing.pop(name, None)
            for name in new.sources:
                extra.pop(name, None)
            yield from _as_loaded(old, new)
        for name in missing:
            yield _missing(name, self._base.tensors[name])
        for name in extra:
            yield _extra(name, self._tuned.tensors[name])

    def _parts(self, base_name: str, name: str) -> tuple[Part | None, Part | None]:
        if self._old is None or self._new is None:
            return None, None
        return self._old.part(base_name), self._new.part(name)

    def _two_forms(self) -> Iterator[tuple[Part, Part]]:
        """What both have, but in forms that the loader has to turn into the same."""
        if self._old is None or self._new is None:
            return
        paired = self.pairing.base_of
        used = set(paired.values())
        left = [part for part in self._old.parts if not used & part.sources.keys()]
        offered = [part for part in self._new.parts if not paired.keys() & part.sources.keys()]
        of_base = {name: part for part in left for name, shape in part.shapes.items() if shape is not None}
        made = {name for part in offered for name, shape in part.shapes.items() if shape is not None}
        for new in offered:
            olds = {id(part): part for name in new.shapes if (part := of_base.get(name)) is not None}
            together = [name for part in olds.values() for name in part.shapes]
            # What only one of them has in full is missing or extra, under its stored names.
            if set(new.shapes).issubset(together) and made.issuperset(together):
                for old in olds.values():
                    yield old, new


def _paired(base: Checkpoint, tuned: Checkpoint, old: Places | None, new: Places | None) -> Pairing:
    """Pair the tensors; a further name of a tensor that is paired is neither missing nor extra."""
    as_is = (old.as_is, new.as_is) if old is not None and new is not None else ()
    pairing = pair(base.tensors, tuned.tensors, *as_is)
    firsts = {base.tensors[name].name for name in pairing.base_of.values()}
    seconds = {tuned.tensors[name].name for name in pairing.base_of}
    return replace(
        pairing,
        missing=tuple(name for name in pairing.missing if base.tensors[name].name not in firsts),
        extra=tuple(name for name in pairing.extra if tuned.tensors[name].name not in seconds),
    )


def _cut(old: Part, new: Part, one: StoredTensor, other: StoredTensor) -> Iterator[TensorDiff]:
    """A row per parameter of what is stored as one tensor."""
    if one.dtype == other.dtype and one.shape == other.shape and same_bits(one, other):
        for name, shape in new.shapes.items():
            word = dtype_word(other.dtype)
            yield TensorDiff(
                name, name, "", name, "identical", None, None, shape, shape, word, word, Change(), as_loaded=True
            )
    else:
        yield from _as_loaded(old, new)


def _as_loaded(old: Part, new: Part) -> Iterator[TensorDiff]:
    """A row per parameter that both become when they are loaded."""
    olds, news = old.load(), new.load()
    for name in olds.keys() & news.keys():
        yield replace(_compared(name, name, olds[name], news[name]), parameter=name, as_loaded=True)


def _missing(name: str, one: StoredTensor) -> TensorDiff:
    return TensorDiff(name, name, "", None, "missing", base_shape=one.shape, base_dtype=dtype_word(one.dtype))


def _extra(name: str, other: StoredTensor) -> TensorDiff:
    return TensorDiff(name, None, "", None, "extra", tuned_shape=other.shape, tuned_dtype=dtype_word(other.dtype))


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
    was, now = dtype_word(one.dtype), dtype_word(other.dtype)
    return TensorDiff(name, base_name, "", None, verdict, rows, common, one.shape, other.shape, was, now, change)
