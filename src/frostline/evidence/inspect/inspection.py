"""See: what is frozen in a model, where it came from, and what it weighs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from os import PathLike, fspath
from typing import Any, Literal

from torch import nn

from frostline.anatomy.kinds import kinds_of
from frostline.anatomy.modelmap import ModelMap, Unit
from frostline.anatomy.origin import Origin, match, origin_of
from frostline.base.escaping import printable
from frostline.base.json import picked
from frostline.base.plain_table import plain_table
from frostline.checkpoints.adapters import AdapterFolder
from frostline.checkpoints.reading import read_headers
from frostline.checkpoints.skeleton import load_config, skeleton
from frostline.checkpoints.source import locate, short_name
from frostline.evidence.inspect.tower import Tower, tower_of
from frostline.freezing.mode import is_pinned
from frostline.plan.describe import describe, shortened
from frostline.report.page import fragment, render
from frostline.report.svg import tower_svg
from frostline.report.tower_data import packed

Trainable = Literal["yes", "no", "partly", "-"]


@dataclass(frozen=True, slots=True)
class InspectionRow:
    """One unit, or a run of equal layers.

    Attributes:
        name: The unit (``head``), or the run (``layers 0-11``).
        units: How many units the row stands for.
        parameters: Parameters of one unit; a tied tensor counts once, in the unit of its first name.
        trainable_parameters: Those of them that train.
        trainable: ``yes``, ``no``, ``partly``, or ``-`` for a unit without parameters.
        origin: ``pretrained``, ``new``, ``mixed`` or ``unknown``; ``-`` without parameters.
        frozen_mode: For a unit with frozen modules: ``eval`` where they stay in eval mode, ``train`` where
            they follow ``model.train()``, ``mixed``. ``-`` where no module is frozen as a whole.
        bytes: Memory of one unit's parameters and buffers, in bytes.
        buffers: Number of buffers of one unit.
        buffer_elements: Their elements.
        shared: Whether one of the tensors has further names.
    """

    name: str
    units: int
    parameters: int
    trainable_parameters: int
    trainable: Trainable
    origin: str
    frozen_mode: str
    bytes: int
    buffers: int
    buffer_elements: int
    shared: bool


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        model_class: Name of the model's class.
        verdict: The answer in one sentence.
        rows: From the head down to the embeddings, equal layers folded.
        parameters: All parameters, tied tensors counted once.
        trainable_parameters: Those that train.
        names: Per parameter, whether it trains; as ``named_parameters()`` prints them.
        origin: Where the parameters came from.
        tied: Per tensor with several names, all of them.
        tower: Every unit with its parameters, from the embeddings up.
        remarks: What else the anatomy says: wrappers, adapters, layers that run more than once, no stack found.
    """

    model_class: str
    verdict: str
    rows: tuple[InspectionRow, ...]
    parameters: int
    trainable_parameters: int
    names: tuple[tuple[str, bool], ...]
    origin: Origin
    tied: tuple[tuple[str, ...], ...]
    tower: Tower
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The inspection as plain values."""
        origin = {
            "checkpoint": self.origin.source,
            "new": sorted(self.origin.new),
            "unused": list(self.origin.unused),
        }
        found = picked(self, "model_class", "verdict", "parameters", "trainable_parameters", "rows")
        return found | origin | picked(self, "tied", "remarks") | {"names": dict(self.names)}

    def __str__(self) -> str:
        lines = [self.verdict, "", *plain_table(COLUMNS, (row_cells(row) for row in self.rows), RIGHT_ALIGNED)]
        return "\n".join([*lines, *(["", *notes] if (notes := self.notes) else [])])

    def to_html(self, costs: Mapping[str, Any] | None = None) -> str:
        """The inspection as a page: one file of HTML, with the tower in which the frost line is moved.

        Args:
            costs: What the page reckons times and activations by, as the engine draws it up; None to show none.
        """
        return self.page("inspection.html", costs, kind="inspection", verdict=self.verdict)

    def page(self, template: str, costs: Mapping[str, Any] | None, **values: Any) -> str:
        """Fill a template that shows the tower in which the frost line is moved.

        Args:
            template: Its file's name.
            costs: As for `to_html`.
            **values: What else it names.
        """
        return render(
            template,
            title=self.title,
            remarks=self.notes,
            columns=COLUMNS,
            rows=[row_cells(row) for row in self.rows],
            right=RIGHT_ALIGNED,
            svg=tower_svg(self.tower.to_dict()),
            costs=costs,
            data={"tower": packed(self.tower.to_dict()), "marks": None, "costs": costs},
            **values,
        )

    def to_svg(self) -> str:
        """The tower as a picture, for a file of its own."""
        return str(tower_svg(self.tower.to_dict(), alone=True))

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer and the tower, without a script."""
        return fragment(self.verdict, tower_svg(self.tower.to_dict()), self.notes)

    @property
    def title(self) -> str:
        """What was inspected: the class, and the checkpoint where one is known."""
        return self.model_class + (f" from {short_name(self.origin.source)}" if self.origin.source is not None else "")

    @property
    def notes(self) -> tuple[str, ...]:
        """What the table does not show: wrappers and adapters, unused and tied tensors."""
        notes = list(self.remarks)
        if self.origin.mismatched:
            names = _some(sorted(self.origin.mismatched))
            notes.append(f"In another shape in the checkpoint, so initialised anew: {names}")
        if self.origin.unused:
            notes.append(f"In the checkpoint, but not used: {_some(self.origin.unused)}")
        return (*notes, *_ties(self.tied))


COLUMNS = ("unit", "parameters", "trains", "origin", "frozen mode", "memory", "buffers")
RIGHT_ALIGNED = ("parameters", "memory")
MINOR = ("buffers", "memory", "frozen mode")  # go in this order where there is no room


def row_cells(row: InspectionRow) -> tuple[str, ...]:
    """The texts of one row, in the order of `COLUMNS`."""
    times = f"{row.units} × " if row.units > 1 else ""
    return (
        row.name + (" (shared)" if row.shared else ""),
        f"{times}{row.parameters:,}",
        row.trainable,
        row.origin,
        row.frozen_mode,
        f"{times}{_size(row.bytes)}",
        f"{times}{row.buffers} ({row.buffer_elements:,} values)" if row.buffers else "-",
    )


def inspect(model_or_name: nn.Module | str | PathLike[str], *, trust_remote_code: bool = False) -> Inspection:
    """See what is frozen in a model, where it came from and what it weighs.

    Args:
        model_or_name: A model, read as it is; or a folder or hub name, of which only the configuration and
            the headers of the weights are read, and which is shown as a sequence classifier.
        trust_remote_code: Whether code that comes with the checkpoint may run.

    Raises:
        ModelError: If the name leads to no model that can be read.
    """
    if isinstance(model_or_name, str | PathLike):
        model, origin = open_skeleton(fspath(model_or_name), trust_remote_code=trust_remote_code)
        return inspect_model(model, origin)
    return inspect_model(model_or_name, origin_of(model_or_name))


def open_skeleton(
    name: str, *, from_config: bool = False, trust_remote_code: bool = False, **overrides: Any
) -> tuple[nn.Module, Origin]:
    """Build a checkpoint's classifier without its values, and say where its parameters would come from.

    Args:
        name: A folder, which may hold adapters of PEFT, or a hub name.
        from_config: Whether to look at the configuration alone, as where there are no weights.
        trust_remote_code: Whether code that comes with the checkpoint may run.
        **overrides: Attributes of the configuration, such as ``num_labels``.

    Raises:
        ModelError: If the name leads to no model that can be read.
    """
    source = locate(name)
    adapters = AdapterFolder.open(source)
    config = load_config(source, trust_remote_code=trust_remote_code, **overrides)
    model = skeleton(config, name, trust_remote_code=trust_remote_code)
    if adapters is None:
        return model, Origin(None) if from_config else match(model, read_headers(source), source.name)
    adapted = adapters.on_skeleton(model)
    origin = match(adapted, read_headers(adapters.base), adapters.base.name)
    return adapted, origin.filled(kinds_of(adapted)["adapters"])


def inspect_model(model: nn.Module, origin: Origin) -> Inspection:
    """See what is frozen in a model whose origin is known."""
    anatomy = ModelMap.of(model)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    rows = [_row(model, unit, origin) for unit in anatomy.units]
    total = sum(sizes.values())
    trainable = sum(size for name, size in sizes.items() if flags[name])
    return Inspection(
        model_class=anatomy.model_class,
        verdict=_verdict(anatomy, flags, total, trainable, origin),
        rows=tuple(_folded(anatomy.units, rows)),
        parameters=total,
        trainable_parameters=trainable,
        names=tuple(flags.items()),
        origin=origin,
        tied=anatomy.tied,
        tower=tower_of(model, anatomy, origin),
        remarks=anatomy.notes,
    )


def _row(model: nn.Module, unit: Unit, origin: Origin) -> InspectionRow:
    parameters = [model.get_parameter(name) for name in unit.parameter_names]
    buffers = [model.get_buffer(name) for name in unit.buffer_names]
    size = sum(parameter.numel() for parameter in parameters)
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return InspectionRow(
        name=unit.name,
        units=1,
        parameters=size,
        trainable_parameters=trainable,
        trainable=_word(trainable, size),
        origin=_one({origin.of(name) for name in unit.parameter_names}),
        frozen_mode=_mode(model, unit),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*parameters, *buffers)),
        buffers=len(buffers),
        buffer_elements=sum(buffer.numel() for buffer in buffers),
        shared=unit.shared,
    )


def _word(trainable: int, size: int) -> Trainable:
    if not size:
        return "-"
    if not trainable:
        return "no"
    return "yes" if trainable == size else "partly"


def _one(words: Iterable[str]) -> str:
    found = sorted(set(words))
    return found[0] if len(found) == 1 else ("mixed" if found else "-")


def _mode(model: nn.Module, unit: Unit) -> str:
    owners = {name.rpartition(".")[0] for name in unit.parameter_names}
    modules = [model.get_submodule(owner) for owner in owners]
    frozen = [module for module in modules if not any(p.requires_grad for p in module.parameters())]
    return _one("eval" if is_pinned(module) else "train" for module in frozen)


def _folded(units: Sequence[Unit], rows: Sequence[InspectionRow]) -> Iterable[InspectionRow]:
    """Rows from head to embeddings, runs of layers that differ in their number only folded into one."""

    def key(pair: tuple[Unit, InspectionRow]) -> tuple[Any, ...]:
        unit, row = pair
        return (unit.kind, unit.stack, replace(row, name="")) if unit.kind == "layer" else (unit.name,)

    for _, group in groupby(zip(reversed(units), reversed(rows), strict=True), key=key):
        run = list(group)
        unit, row = run[-1]  # the lowest layer of the run
        if len(run) == 1:
            yield row
            continue
        yield replace(row, name=f"{unit.stack} layers {unit.index}-{run[0][0].index}".lstrip(), units=len(run))


def _verdict(anatomy: ModelMap, flags: dict[str, bool], total: int, trainable: int, origin: Origin) -> str:
    if trainable == total:
        tail = "" if origin.source is None else ", the pretrained ones included"
        return f"Nothing is frozen: fine-tuning updates all {total:,} parameters{tail}."
    if not trainable:
        return f"Everything is frozen: fine-tuning would update none of the {total:,} parameters."
    frozen = describe(anatomy, (name for name, trains in flags.items() if not trains))
    trains = describe(anatomy, (name for name, trains in flags.items() if trains))
    return (
        f"Partly frozen: fine-tuning updates {trainable:,} of {total:,} parameters ({_percent(trainable / total)}): "
        f"{shortened(trains)}. Frozen: {shortened(frozen)}."
    )


def _size(count: int) -> str:
    """Bytes in the unit that keeps the figure short, powers of ten: ``7.10 MB``."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count} B"


def _percent(share: float) -> str:
    """A share with two significant digits: ``21 %``, ``0.0014 %``; never rounded to nothing or to all."""
    percent = 100 * share
    if percent < 0.001:
        return "less than 0.001 %"
    if percent > 99.99:
        return "more than 99.99 %"
    return f"{percent:.2g} %" if percent < 10 else f"{percent:.2f} %" if percent >= 99 else f"{percent:.0f} %"


def _ties(groups: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Say which tensors have several names; those that whole modules share (Zamba's blocks) in one sentence."""
    by_place: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for group in groups:
        by_place.setdefault(_places(group), []).append(group)
    for places, members in by_place.items():
        if len(members) == 1:
            yield f"One tensor with {len(members[0])} names: {', '.join(members[0])}"
        else:
            yield f"{len(members)} tensors are in each of {', '.join(places)}: freezing them in one freezes them in all"


def _places(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names without the last parts that they have in common."""
    parts = [name.split(".") for name in names]
    while all(len(own) > 1 for own in parts) and len({own[-1] for own in parts}) == 1:
        parts = [own[:-1] for own in parts]
    return tuple(".".join(own) for own in parts)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
