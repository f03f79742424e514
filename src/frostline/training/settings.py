"""What a training run is asked to do."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from frostline.engine.settings import EngineSettings, StoreDtype, StoreWhere
from frostline.errors import SettingsError
from frostline.plan.plan import FrozenMode, Plan

Dtype = Literal["fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda", "mps"]

# A learning rate for a whole pretrained model (the default of transformers), and one for a few new layers
# above frozen ones, which start far from their optimum and cannot harm what is below.
WHOLE_MODEL_LR = 5e-5
HEAD_LR = 1e-3

_OPTIONS = {
    "learning_rate": "--lr",
    "eval_data": "--eval",
    "text_columns": "--text-column",
    "label_columns": "--label-column",
    "engine": "--no-engine",
    "padding_free": "--no-padding-free",
}


def option(setting: str) -> str:
    """The option of ``frostline train`` that gives a setting, for messages."""
    return _OPTIONS.get(setting, f"--{setting.replace('_', '-')}")


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
        frozen_mode: ``"eval"`` or ``"train"``.
        epochs: Passes over the data.
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
        store: Where activations of the frozen part are kept: ``"auto"``, ``"off"``, ``"memory"`` or ``"disk"``.
        store_dir: The folder for stores on disk; None for the user's cache.
        store_budget: The most that a store may take, such as ``"4GB"``; None for half of what is free.
        store_dtype: What activations are stored as; None to store them as they are computed.
        padding_free: Whether layers may run without padding.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        SettingsError: If a number is out of its range, or a setting of the engine is none.
        PlanError: If the plan contradicts itself.
    """

    model: str
    data: str
    eval_data: str | None = None
    freeze: str | None = None
    train_only: str | None = None
    frozen_mode: FrozenMode = "eval"
    epochs: float = 3.0
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

    def __post_init__(self) -> None:
        for name, value, least in (
            ("epochs", self.epochs, None),
            ("learning_rate", self.learning_rate, None),
            ("batch_size", self.batch_size, 1),
            ("max_length", self.max_length, 1),
            ("limit", self.limit, 1),
            ("patience", self.patience, 1),
        ):
            if value is not None and (value < least if least is not None else not 0 < value < float("inf")):
                rule = f"at least {least}" if least is not None else "above 0"
                raise SettingsError(f"{option(name)} is {value}; it must be {rule}.")
        if not 0 <= self.seed < 2**32:
            raise SettingsError(f"--seed is {self.seed}; it must be from 0 to {2**32 - 1}.")
        if self.patience is not None and self.eval_data is None:
            raise SettingsError("--patience needs evaluation data to judge by.\nName it with --eval.")
        if self.eval_share is not None and not 0 < self.eval_share < 1:
            raise SettingsError(f"--eval is '{self.eval_data}'; a share is above 0% and below 100%.")
        EngineSettings(store=self.store, store_budget=self.store_budget, store_dtype=self.store_dtype)
        self.plan()

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
