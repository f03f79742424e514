"""What a training run is asked to do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from frostline.engine.settings import EngineSettings, StoreDtype, StoreWhere
from frostline.errors import SettingsError
from frostline.plan.plan import FrozenMode, Plan

Dtype = Literal["fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda", "mps"]

# Beyond these, libraries that count in 32 or 64 bits fail in their own words, or a run never ends.
_MOST_EPOCHS = 1_000_000
_MOST_RANK = 1 << 16  # far beyond the width of any model
MOST = 2**31 - 1

_OPTIONS = {
    "learning_rate": "--lr",
    "rates": "--lr",
    "eval_data": "--eval",
    "text_columns": "--text-column",
    "label_columns": "--label-column",
    "engine": "--no-engine",
    "padding_free": "--no-padding-free",
}


def option(setting: str) -> str:
    """The option of ``frostline train`` that gives a setting, for messages."""
    return _OPTIONS.get(setting, f"--{setting.replace('_', '-')}")


def given(setting: str, value: Any) -> str:
    """A setting as it is given on the command line, for messages: ``--epochs 3.0``, ``no --no-engine``."""
    if isinstance(value, bool):
        means = value != option(setting).startswith("--no-")
        return option(setting) if means else f"no {option(setting)}"
    if value is None:
        return f"no {option(setting)}"
    return f"{option(setting)} {','.join(value) if isinstance(value, list | tuple) else value!r}"


def require_number(setting: str, value: float, *, least: int | None = None, most: int | None = None) -> None:
    """Refuse a number that is out of its range.

    Args:
        setting: The setting that it is for.
        value: The number.
        least: The smallest that it may be; None for anything above 0.
        most: The largest that it may be; None for anything finite.

    Raises:
        SettingsError: If it is none of these.
    """
    fits = value >= least if least is not None else value > 0
    if not (fits and (value <= most if most is not None else value < float("inf"))):
        rule = f"at least {least}" if least is not None else "above 0"
        rule += f", and at most {most:,}" if most is not None else " and finite"
        raise SettingsError(f"{option(setting)} is {value}; it must be {rule}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """What a training run is asked to do.

    Attributes:
        model: A folder or a hub name.
        data: Where the training rows are: a file, or a data set's hub name.
        eval_data: Where the evaluation rows are, or the share of the training rows that is held out, such as
            ``"10%"``; None to train without evaluation.
        freeze: What is frozen, as a selector.
        train_only: What trains, as a selector; not together with `freeze`.
        schedule: What trains phase by phase: a preset's name, or a TOML file; not together with `freeze`, `train_only`
            or adapters.
        lora: Where LoRA goes, as a selector: into the linear layers within it; all else but the head is frozen. Not
            together with `dora`, `peft`, `freeze` or `train_only`.
        dora: Likewise for DoRA.
        peft: Likewise a JSON file as PEFT writes it, which says what is adapted, and how.
        rank: The rank of `lora` or `dora`; None for 8.
        alpha: Their numerator of the scale alpha / rank; None for twice the rank.
        targets: Names, or last parts of names, of the linear layers that they go into; None for the usual ones.
        merge: Whether the adapters are merged into the weights in the end, so that a plain model is left.
        frozen_mode: ``"eval"`` or ``"train"``.
        epochs: Passes over the data; None to choose by how many rows there are.
        learning_rate: The peak rate; None to choose by what trains.
        batch_size: Rows per step.
        max_length: Tokens per row at most; None for what the model can take.
        seed: Seed of the new weights, the dropout and the order of rows.
        text_columns: One column, or two for pairs of texts.
        label_columns: One column, or several for multi-label and multi-output tasks.
        problem_type: One of transformers' problem types; None to tell it from the labels.
        dtype: ``"fp32"``, or ``"bf16"``, ``"fp16"`` for mixed precision.
        device: ``"auto"`` takes an accelerator where there is one.
        limit: Training rows at most, and evaluation rows likewise: a part drawn by the seed, with labels as equally
            frequent as the rows allow; None for all.
        patience: Evaluations without a better result after which training stops; None for never.
        engine: Whether fast paths are taken.
        store, store_dir, store_budget, store_dtype, padding_free: As in `EngineSettings`.
        trust_remote_code: Whether code that comes with the model may run.
        allow_new_frozen: Whether parameters that the checkpoint lacks, so that they are random, may be frozen.

    Raises:
        SettingsError: If a number is out of its range, or a setting of the engine is none.
        PlanError: If the plan contradicts itself.
    """

    model: str
    data: str
    eval_data: str | None = None
    freeze: str | None = None
    train_only: str | None = None
    schedule: str | None = None
    lora: str | None = None
    dora: str | None = None
    peft: str | None = None
    rank: int | None = None
    alpha: float | None = None
    targets: tuple[str, ...] | None = None
    merge: bool = False
    frozen_mode: FrozenMode = "eval"
    epochs: float | None = None
    learning_rate: float | None = None
    batch_size: int = 16
    max_length: int | None = None
    seed: int = 42
    text_columns: tuple[str, ...] = ("text",)
    label_columns: tuple[str, ...] = ("label",)
    problem_type: str | None = None
    dtype: Dtype = "fp32"
    device: Device = "auto"
    limit: int | None = None
    patience: int | None = None
    engine: bool = True
    store: StoreWhere = "auto"
    store_dir: str | None = None
    store_budget: str | None = None
    store_dtype: StoreDtype | None = None
    padding_free: bool = True
    trust_remote_code: bool = False
    allow_new_frozen: bool = False

    def __post_init__(self) -> None:
        if self.epochs is not None:
            require_number("epochs", self.epochs, most=_MOST_EPOCHS)
        for name in ("batch_size", "max_length", "limit", "patience"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), least=1, most=MOST)
        if self.learning_rate is not None:
            require_number("learning_rate", self.learning_rate)
        if not 0 <= self.seed < 2**32:
            raise SettingsError(f"--seed is {self.seed}; it must be from 0 to {2**32 - 1}.")
        if self.patience is not None and self.eval_data is None:
            raise SettingsError("--patience needs evaluation data to judge by.\nName it with --eval.")
        if self.eval_share is not None and not 0 < self.eval_share < 1:
            raise SettingsError(f"--eval is '{self.eval_data}'; a share is above 0% and below 100%.")
        EngineSettings(store=self.store, store_budget=self.store_budget, store_dtype=self.store_dtype)
        self._check_adapters()
        self._refuse_two_answers()
        self.plan()

    def _check_adapters(self) -> None:
        """Refuse settings of adapters that are out of range, idle, or beside another answer to what trains."""
        if self.rank is not None:
            require_number("rank", self.rank, least=1, most=_MOST_RANK)
        if self.alpha is not None:
            require_number("alpha", self.alpha)
        if self.targets == ():
            raise SettingsError("--targets names nothing.\nName linear layers, such as query,value, or leave it out.")
        for name in ("rank", "alpha", "targets"):
            if getattr(self, name) is not None and self.lora is None and self.dora is None:
                rest = "--peft FILE says it itself" if self.peft is not None else "Give --lora SELECTORS, or --dora"
                raise SettingsError(f"{given(name, getattr(self, name))} is about LoRA and DoRA.\n{rest}.")
        if self.merge and not self.adapts:
            raise SettingsError("--merge has no adapters to merge.\nGive --lora, --dora or --peft.")

    def _refuse_two_answers(self) -> None:
        """Refuse adapters, a schedule or a plan beside one another."""
        names = ("lora", "dora", "peft", "schedule", "freeze", "train_only")
        ways = [name for name in names if getattr(self, name) is not None]
        if len(ways) > 1 and (self.adapts or self.schedule is not None):
            first, second = (given(name, getattr(self, name)) for name in ways[:2])
            raise SettingsError(f"{first} and {second} both say what trains.\nGive one of them.")

    @property
    def adapts(self) -> bool:
        """Whether adapters train in the place of the model's own layers."""
        return any(way is not None for way in (self.lora, self.dora, self.peft))

    @property
    def leaves_adapters(self) -> bool:
        """Whether the output folder holds adapters, and no whole model."""
        return self.adapts and not self.merge

    @property
    def eval_share(self) -> float | None:
        """The share of the training rows that is held out for evaluation; None where it has rows of its own."""
        share = re.fullmatch(r"(.*)%\s*", self.eval_data or "")
        try:
            return None if share is None else float(share[1]) / 100
        except ValueError:
            raise SettingsError(f"--eval is '{self.eval_data}'; a share is written 10%.") from None

    def plan(self) -> Plan | None:
        """The plan that the settings name; None where they name nothing to freeze."""
        return Plan.named(self.freeze, self.train_only, self.frozen_mode)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)


def known_settings(noted: Any) -> dict[str, Any]:
    """Of settings that a file holds, those that this version knows."""
    known = {field.name for field in fields(TrainSettings)}
    return {name: value for name, value in noted.items() if name in known} if isinstance(noted, dict) else {}


def command_of(settings: Mapping[str, Any]) -> str:
    """Write the command that trains so, with what is given and is no default.

    Args:
        settings: Fields of `TrainSettings` as plain values.
    """
    return shlex.join(["frostline", "train", *_words(settings)])


def _words(settings: Mapping[str, Any]) -> Iterator[str]:
    for field in fields(TrainSettings):
        value = settings.get(field.name, field.default)
        if isinstance(value, list):
            value = tuple(value)
        if value == field.default:
            continue
        yield option(field.name)
        if not isinstance(value, bool):
            yield ",".join(map(str, value)) if isinstance(value, tuple) else f"{value}"
