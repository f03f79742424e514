"""Schedules by name, made for a given model; each follows a paper, or a library that people know."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostline.anatomy.modelmap import ModelMap
from frostline.errors import PlanError
from frostline.plan.describe import describe
from frostline.plan.phase import Phase
from frostline.plan.schedule import Schedule
from frostline.plan.schedule_file import read_schedule

if TYPE_CHECKING:
    from torch import nn

_DISCRIMINATIVE = 0.385  # 1 / 2.6, by which Howard and Ruder divide
_LOWEST = 0.01  # of the top's rate, as fastai has it at the bottom


@dataclass(frozen=True, slots=True)
class Preset:
    """A schedule by name.

    Attributes:
        name: Its name.
        what: What it does, in a few words.
        source: Where it is from.
        phases: Makes its phases for a model.
    """

    name: str
    what: str
    source: str
    phases: Callable[[ModelMap], Sequence[Phase]]


def schedule_for(model: nn.Module, given: Any) -> Schedule:
    """The schedule that is meant: itself, a list of phases, the name of a preset, or a TOML file.

    Args:
        model: The model that a preset is made for.
        given: What was given.

    Raises:
        PlanError: If it is none of these, the file is no schedule, or the preset does not fit the model.
    """
    if isinstance(given, Schedule):
        return given
    if isinstance(given, list | tuple):
        return Schedule(tuple(given))
    if isinstance(given, str) and given in PRESETS:
        return preset(model, given)
    if isinstance(given, Path) or (isinstance(given, str) and (given.endswith(".toml") or Path(given).is_file())):
        return read_schedule(given)
    near = difflib.get_close_matches(str(given), PRESETS, 1)
    mend = f"Did you mean '{near[0]}'?" if near else f"Presets are {', '.join(PRESETS)}; files end in .toml."
    raise PlanError(f"schedule is {given!r}: neither phases, nor a preset, nor a TOML file.\n{mend}")


def preset(model: nn.Module, name: str) -> Schedule:
    """Make a schedule by name for a model.

    Args:
        model: The model; on the meta device too.
        name: One of `PRESETS`.

    Raises:
        PlanError: If there is none of that name, or the model lacks what it trains.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(str(name), PRESETS, 1)
        mend = f"Did you mean '{near[0]}'?" if near else f"There are {', '.join(PRESETS)}."
        raise PlanError(f"There is no preset {str(name)!r}.\n{mend}")
    anatomy = ModelMap.of(model)
    if not any(unit.kind == "head" for unit in anatomy.units):
        raise PlanError(
            f"The preset '{name}' trains a head, and {anatomy.model_class} has none.\nWrite phases instead."
        )
    return replace(Schedule(tuple(PRESETS[name].phases(anatomy))), name=name)


def _gradual(anatomy: ModelMap) -> Sequence[Phase]:
    steps = [["head"]]  # kinds or names of the units that thaw together
    above: list[str] = []
    for unit in reversed(anatomy.units):
        if unit.kind == "layer":
            steps.append([*above, unit.name])
            above = []
        elif unit.kind not in ("head", "embeddings"):
            above.append(unit.name)  # a pooler thaws with the layer beneath it
    trains: set[str] = set()
    selectors = []
    for names in steps:
        trains |= {
            name for unit in anatomy.units if unit.name in names or unit.kind in names for name in unit.parameter_names
        }
        selectors.append(describe(anatomy, trains))
    selectors = [*dict.fromkeys(selectors), "all"]
    until = f"{100 / len(selectors):.3g}%"
    return [Phase(selector, until=until) for selector in selectors[:-1]] + [Phase("all")]


def _fine_tune(anatomy: ModelMap) -> Sequence[Phase]:
    decay = round(_LOWEST ** (1 / (1 + sum(unit.kind == "layer" for unit in anatomy.units))), 3)
    return [Phase("head", until="25%"), Phase("all", lr="0.1x", layer_decay=decay)]


def _bitfit(anatomy: ModelMap) -> Sequence[Phase]:
    return [Phase(f"{_kind(anatomy, 'bias')}, head")]


def _norms_only(anatomy: ModelMap) -> Sequence[Phase]:
    return [Phase(f"{_kind(anatomy, 'norms')}, head")]


def _surgical(anatomy: ModelMap) -> Sequence[Phase]:
    layers = _layers(anatomy, "surgical", least=1)
    band = layers[: max(1, len(layers) // 3)]
    return [Phase(f"{describe(anatomy, [name for unit in band for name in unit.parameter_names])}, head")]


def _lisa(anatomy: ModelMap) -> Sequence[Phase]:
    _layers(anatomy, "lisa", least=2)
    return [Phase("all", layers="2 random every 20 steps")]


def _auto_freeze(anatomy: ModelMap) -> Sequence[Phase]:
    _layers(anatomy, "auto-freeze", least=1)
    return [Phase("all", layers="unsettled every 25 steps")]


def _layers(anatomy: ModelMap, name: str, least: int) -> Sequence[Any]:
    layers = [unit for unit in anatomy.units if unit.kind == "layer"]
    if len(layers) < least:
        raise PlanError(
            f"The preset '{name}' chooses among layers, and {anatomy.model_class} has {len(layers)}.\n"
            "Write phases instead."
        )
    return layers


def _kind(anatomy: ModelMap, kind: Any) -> str:
    if not anatomy.kinds.get(kind):
        raise PlanError(f"{anatomy.model_class} has no parameters of the kind '{kind}'.\nTake another preset.")
    return str(kind)


PRESETS = {
    one.name: one
    for one in (
        Preset(
            "head-only", "the head alone, on features that stay as they are", "linear probe", lambda _: [Phase("head")]
        ),
        Preset(
            "linear-probe-then-fine-tune",
            "the head alone, then everything",
            "Kumar et al. 2022, arXiv:2202.10054",
            lambda _: [Phase("head", until="50%"), Phase("all")],
        ),
        Preset(
            "gradual-unfreezing",
            "the head, then one layer more at a time",
            "Howard and Ruder 2018, arXiv:1801.06146",
            _gradual,
        ),
        Preset(
            "discriminative",
            "everything, a lower rate for each lower layer",
            "Howard and Ruder 2018, arXiv:1801.06146",
            lambda _: [Phase("all", layer_decay=_DISCRIMINATIVE)],
        ),
        Preset(
            "fine-tune",
            "the head, then everything at a tenth of the rate, less below",
            "fastai's fine_tune; Howard and Gugger 2020, arXiv:2002.04688",
            _fine_tune,
        ),
        Preset("bitfit", "biases and the head", "Ben Zaken et al. 2022, arXiv:2106.10199", _bitfit),
        Preset("norms-only", "normalisations and the head", "Frankle et al. 2021, arXiv:2003.00152", _norms_only),
        Preset("surgical", "one band of layers and the head", "Lee et al. 2023, arXiv:2210.11466", _surgical),
        Preset("lisa", "two layers drawn at random for 20 steps at a time", "Pan et al. 2024, arXiv:2403.17919", _lisa),
        Preset(
            "auto-freeze",
            "everything, and layers freeze from below as their gradients settle",
            "Liu et al. 2021, arXiv:2102.01386",
            _auto_freeze,
        ),
    )
}
