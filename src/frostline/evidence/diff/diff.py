"""Diff: what became of each unit between two checkpoints, and whether that is as expected."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from frostline.anatomy.modelmap import ModelMap
from frostline.base.escaping import printable
from frostline.base.json import picked
from frostline.checkpoints.meter import Meter, Report, silent
from frostline.checkpoints.reading import open_checkpoint
from frostline.checkpoints.skeleton import load_config, skeleton
from frostline.checkpoints.source import Source, locate, short_name
from frostline.errors import ModelError
from frostline.evidence.diff.tensor_diff import UNPLACED, VERDICTS, Comparison, TensorDiff
from frostline.evidence.diff.unit_diff import UnitDiff, unit_diff
from frostline.evidence.diff.view import (
    FIGURES,
    MOST_LINES,
    MOST_ROWS,
    TENSOR_COLUMNS,
    UNIT_COLUMNS,
    marks_of_diff,
    most_moved,
    sorted_cells,
    tensor_cells,
    tower_of_diff,
    unit_cells,
)
from frostline.evidence.proof.proof import buffers_beside
from frostline.plan.recipe import compile_selector
from frostline.report.page import fragment, render
from frostline.report.svg import tower_svg
from frostline.report.tower_data import packed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from os import PathLike

    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Violation:
    """A parameter or buffer that was expected to be frozen, or to have moved, and was not.

    Attributes:
        name: The name of the parameter or buffer in the model.
        expected: ``frozen`` or ``moved``.
        found: What became of it instead: the tensor's verdict, or ``absent`` where neither checkpoint holds it.
    """

    name: str
    expected: Literal["frozen", "moved"]
    found: str

    def __str__(self) -> str:
        return (
            f"{printable(self.name)} was expected {'frozen' if self.expected == 'frozen' else 'to move'}: {self.found}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The violation as plain values."""
        return asdict(self)


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

    def to_html(self) -> str:
        """The diff as a page: one file of HTML, with a tower of what moved how far, and tables to sort."""
        tower, marks = tower_of_diff(self.model_class, self.tuned, self.units, self.tensors), self._marks
        changed = [row for row in self.tensors if row.verdict != "identical"]
        return render(
            "diff.html",
            kind="diff",
            title=f"{short_name(self.tuned)} beside {short_name(self.base)}",
            verdict=self.verdict,
            notes_of=[*_first(self.violations), *([self.note] if self.note else [])],
            units=(UNIT_COLUMNS, list(map(sorted_cells, map(unit_cells, reversed(self.units))))),
            tensors=(TENSOR_COLUMNS, list(map(sorted_cells, map(tensor_cells, changed[:MOST_ROWS])))),
            changed=len(changed),
            right=FIGURES,
            svg=tower_svg(tower.to_dict(), marks),
            data={"tower": packed(tower.to_dict()), "marks": marks, "costs": None, "open": most_moved(self.units)},
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer and the tower, without a script."""
        tower = tower_of_diff(self.model_class, self.tuned, self.units, self.tensors)
        return fragment(self.verdict, tower_svg(tower.to_dict(), self._marks), _first(self.violations))

    @property
    def _marks(self) -> list[dict[str, Any]]:
        return marks_of_diff(self.units, self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """The diff as plain values; a figure that is no finite number stays as Python has it."""
        about = ("base", "tuned", "model_class", "verdict", "ok", "added", "removed", "note")
        return picked(self, *about, "violations", "units", "tensors")


def diff(
    base: str | PathLike[str],
    tuned: str | PathLike[str],
    *,
    expect_frozen: str | None = None,
    expect_moved: str | None = None,
    allow_cast: bool = False,
    report: Report = silent,
) -> Diff:
    """Compare two checkpoints, tensor by tensor, without loading either model.

    Args:
        base: The checkpoint that training started from: a folder or a hub name.
        tuned: What it ended with, likewise.
        expect_frozen: A selector of the parameters that must be identical; so must be the buffers of modules of which
            it means all parameters (the statistics of a BatchNorm), where both checkpoints hold them.
        expect_moved: A selector of the parameters of which none may be identical or only cast.
        allow_cast: Whether a parameter that is only cast counts as frozen.
        report: Is called with the number of bytes that were compared so far, and that of all.

    Returns:
        The comparison; what is not as it was expected is in its `violations`.

    Raises:
        ModelError: If a checkpoint cannot be found or read, or parameters are expected of one that is no classifier.
        SelectorError: If a selector does not fit the model.
    """
    model, note = _skeleton(locate(tuned), locate(base))
    if model is None and (expect_frozen is not None or expect_moved is not None):
        raise ModelError(note)
    anatomy = ModelMap.of(model) if model is not None else None
    frozen = _selected(model, anatomy, expect_frozen)  # a selector that does not fit is said before anything is read
    moved = _selected(model, anatomy, expect_moved)
    buffers = buffers_beside(model, frozen) if model is not None else frozenset()
    first, second = open_checkpoint(base), open_checkpoint(tuned)
    comparison = Comparison(first, second, model, anatomy)
    rows = list(comparison.rows(Meter(comparison.bytes, report)))
    order = [unit.name for unit in anatomy.units] if anatomy is not None else []
    units = [unit_diff(name, [row for row in rows if row.unit == name]) for name in (*order, UNPLACED)]
    return Diff(
        base=first.source.name,
        tuned=second.source.name,
        model_class=anatomy.model_class if anatomy is not None else None,
        tensors=tuple(sorted(rows, key=lambda row: order.index(row.unit) if row.unit in order else len(order))),
        units=tuple(unit for unit in units if unit.tensors),
        added=comparison.pairing.added,
        removed=comparison.pairing.removed,
        violations=tuple(_violations(rows, frozen, buffers, moved, anatomy, allow_cast=allow_cast)),
        note=note,
    )


def _first(violations: Sequence[Violation]) -> Iterator[str]:
    yield from (f"Violation: {violation}" for violation in violations[:MOST_LINES])
    if len(violations) > MOST_LINES:
        yield f"and {len(violations) - MOST_LINES} more violations"


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


def _violations(
    rows: Iterable[TensorDiff],
    frozen: Iterable[str],
    buffers: Iterable[str],
    moved: Iterable[str],
    anatomy: ModelMap | None,
    *,
    allow_cast: bool,
) -> Iterator[Violation]:
    firsts = {name: group[0] for group in (anatomy.tied if anatomy is not None else ()) for name in group}
    found: dict[str, list[str]] = {}
    placed = [(firsts.get(row.parameter, row.parameter), row) for row in rows if row.parameter is not None]
    both = {name for name, row in placed if row.base_shape is not None and row.tuned_shape is not None}
    for name, row in placed:
        # Of a tied tensor, one may save all names and the other a single one.
        if row.parameter not in firsts or name not in both or row.verdict not in {"missing", "extra"}:
            found.setdefault(name, []).append(row.verdict)
    still = {"identical", "cast"} if allow_cast else {"identical"}
    for name in frozen:
        words = found.get(name, ["absent"])
        if not still.issuperset(words):
            yield Violation(name, "frozen", ", ".join(sorted(set(words) - still)))
    for name in sorted(buffers):
        # Tables that only one of them saves are made anew by the model.
        words = [word for word in found.get(name, []) if word not in {"missing", "extra"}]
        if not still.issuperset(words):
            yield Violation(name, "frozen", ", ".join(sorted(set(words) - still)))
    for name in moved:
        words = found.get(name, ["absent"])
        # A parameter that is stored in several tensors moved if one of them did.
        if not {"changed", "reshaped", "extra"} & set(words) or "missing" in words:
            yield Violation(name, "moved", ", ".join(sorted(set(words))))
