"""A phase of a schedule: what trains, until when, and how fast."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from frostline.errors import PlanError

LengthKind = Literal["epochs", "steps", "share", "plateau"]

_COUNTED = re.compile(r"(\d+(?:\.\d+)?)\s*(epochs?|steps?|%)")
_PLATEAU = re.compile(r"plateau of (\S+?)(?: for (\d+) evaluations?)?")
_FACTOR = re.compile(r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?)\s*x")
_RANDOM = re.compile(r"(\d+) random every (\d+) steps?")
_UNSETTLED = re.compile(r"unsettled every (\d+) steps?")
_UNTIL_FORMS = "'1 epoch', '200 steps', '25%' of the run, or 'plateau of eval_loss for 2 evaluations'"


@dataclass(frozen=True, slots=True)
class Length:
    """How long a phase lasts.

    Attributes:
        kind: ``epochs``, ``steps``, ``share`` (of the run's steps), or ``plateau``: until a metric no longer improves.
        amount: Epochs, steps, or the share, above 0 and at most 1; of a plateau, the evaluations without a better
            value.
        metric: The metric of a plateau, as an evaluation names it; ``""`` else.
    """

    kind: LengthKind
    amount: float
    metric: str = ""

    @classmethod
    def read(cls, text: Any) -> Length:
        """Read a length as it is written.

        Raises:
            PlanError: If it is none.
        """
        written = " ".join(text.split()) if isinstance(text, str) else ""
        if found := _PLATEAU.fullmatch(written):
            length = cls("plateau", float(found[2] or 1), found[1])
        elif found := _COUNTED.fullmatch(written):
            kind: LengthKind = "share" if found[2] == "%" else "epochs" if found[2].startswith("e") else "steps"
            length = cls(kind, float(found[1]) / (100 if kind == "share" else 1))
        else:
            raise PlanError(f"until is {text!r}.\nWrite {_UNTIL_FORMS}.")
        broken = length.kind in ("steps", "plateau") and length.amount % 1
        if not 0 < length.amount < math.inf or broken or (length.kind == "share" and length.amount > 1):
            raise PlanError(f"until is {text!r}, which is no length.\nWrite {_UNTIL_FORMS}.")
        return length

    def steps(self, per_epoch: int | None, of_run: int) -> int | None:
        """Optimizer steps, at least one; None where they are not known before.

        Args:
            per_epoch: Optimizer steps of an epoch; None where that is not known.
            of_run: Those of the whole run.

        Raises:
            PlanError: If it counts epochs, and nobody knows how long one is.
        """
        if self.kind == "plateau":
            return None
        if self.kind == "epochs":
            if per_epoch is None:
                raise PlanError(f"until counts {self.amount:g} epochs of data whose length is not known.\nCount steps.")
            return max(1, math.ceil(self.amount * per_epoch))
        return max(1, round(self.amount * of_run)) if self.kind == "share" else int(self.amount)


@dataclass(frozen=True, slots=True)
class Rate:
    """A peak learning rate.

    Attributes:
        value: The rate, or what the run's is multiplied by.
        is_factor: Which of the two.
    """

    value: float
    is_factor: bool = False

    @classmethod
    def read(cls, given: Any) -> Rate:
        """Read a rate as it is given: a number, or a text such as ``"0.1x"``.

        Raises:
            PlanError: If it is none.
        """
        found = _FACTOR.fullmatch(given.strip()) if isinstance(given, str) else None
        is_number = isinstance(given, int | float) and not isinstance(given, bool)
        rate = cls(float(found[1]), is_factor=True) if found else cls(float(given) if is_number else math.nan)
        if not 0 < rate.value < math.inf:
            raise PlanError(f"lr is {given!r}.\nGive a number above 0, or a multiple of the run's rate: '0.1x'.")
        return rate


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the layers that a phase trains do so at a time.

    Attributes:
        every: Optimizer steps after which it is chosen anew.
        random: How many are drawn; None where they freeze from below as their gradients settle.
    """

    every: int
    random: int | None = None

    @classmethod
    def read(cls, text: Any) -> Choice:
        """Read a choice as it is written.

        Raises:
            PlanError: If it is none.
        """
        written = " ".join(text.split()) if isinstance(text, str) else ""
        found = _RANDOM.fullmatch(written)
        chosen = cls(int(found[2]), int(found[1])) if found else None
        if found := _UNSETTLED.fullmatch(written):
            chosen = cls(int(found[1]))
        if chosen is None or not chosen.every or chosen.random == 0:
            raise PlanError(f"layers is {text!r}.\nWrite '2 random every 20 steps', or 'unsettled every 50 steps'.")
        return chosen


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a training run: what trains, until when, and how fast.

    Attributes:
        train: A selector of what trains; all else is frozen.
        until: How long: ``"1 epoch"``, ``"200 steps"``, ``"25%"`` of the run's steps, or ``"plateau of eval_loss for 2
            evaluations"``, until so many in a row (one, where none is named) bring nothing better than the phase had.
            None, which only the last phase may have: until the run ends.
        lr: The peak learning rate, or a multiple of the run's: ``"0.1x"``; or either per selector, of which later ones
            win, and what none means has the run's. None for the run's. The Trainer's scheduler multiplies it as it
            does the run's.
        layer_decay: What a layer's rate is multiplied by for the layer beneath it, above 0 and at most 1: in a model of
            L layers the head has the rate itself, the top layer once the decay, the embeddings L + 1 times.
        warmup: Steps over which the rate rises to its value when the phase begins; or below 1, that share of it.
        layers: Which of the layers that `train` means do so at a time: ``"2 random every 20 steps"``, or ``"unsettled
            every 50 steps"``, which freezes embeddings and layers from below as the norms of their gradients settle.
            None for all.

    Raises:
        PlanError: If one of these is none.
    """

    train: str
    until: str | None = None
    lr: float | str | Mapping[str, float | str] | None = None
    layer_decay: float | None = None
    warmup: float | None = None
    layers: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.train, str) or not self.train.strip():
            raise PlanError(f"train is {self.train!r}.\nName what trains, as a selector: 'head', 'layers[-2:], head'.")
        if self.until is not None:
            Length.read(self.until)
        for given in self.lr.values() if isinstance(self.lr, Mapping) else () if self.lr is None else (self.lr,):
            Rate.read(given)
        if isinstance(self.lr, Mapping) and not (self.lr and all(isinstance(key, str) for key in self.lr)):
            raise PlanError(f"lr is {self.lr!r}.\nGive a rate, or one per selector: {{'head': 1e-3}}.")
        if self.layer_decay is not None and not (_is_number(self.layer_decay) and 0 < self.layer_decay <= 1):
            raise PlanError(f"layer_decay is {self.layer_decay!r}; it must be above 0, and at most 1.")
        if self.warmup is not None and not _is_warmup(self.warmup):
            raise PlanError(f"warmup is {self.warmup!r}.\nGive a number of steps, or a share of the phase below 1.")
        if self.layers is not None:
            Choice.read(self.layers)

    @property
    def length(self) -> Length | None:
        """How long it lasts; None for until the run ends."""
        return None if self.until is None else Length.read(self.until)

    @property
    def choice(self) -> Choice | None:
        """Which of the layers train at a time; None for all."""
        return None if self.layers is None else Choice.read(self.layers)

    def rates(self) -> dict[str, Rate]:
        """The rates by selector, ``"all"`` for one that holds for all; none where it is the run's."""
        by_selector = self.lr if isinstance(self.lr, Mapping) else {} if self.lr is None else {"all": self.lr}
        return {selector: Rate.read(given) for selector, given in by_selector.items()}

    def to_dict(self) -> dict[str, Any]:
        """The phase as plain values; what is left out is left out."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        return values | ({"lr": dict(self.lr)} if isinstance(self.lr, Mapping) else {})

    def __str__(self) -> str:
        lr = self.lr
        if isinstance(lr, Mapping):
            lr = ", ".join(f"{selector}: {_rate_text(given)}" for selector, given in lr.items())
        said = [f"train {self.train}"]
        said += [f"of the layers {self.layers}"] if self.layers is not None else []
        said += [f"for {self.until}" if "plateau" not in self.until else f"until {self.until}"] if self.until else []
        said += [f"learning rate {_rate_text(lr)}"] if lr is not None else []
        said += [f"layer decay {self.layer_decay:g}"] if self.layer_decay is not None else []
        said += [f"warm-up {self.warmup:g}"] if self.warmup is not None else []
        return "; ".join(said)


PHASE_KEYS = tuple(field.name for field in fields(Phase))


def _rate_text(given: Any) -> str:
    return f"{given:g}" if isinstance(given, int | float) else str(given)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_warmup(value: float) -> bool:
    return _is_number(value) and (0 < value < 1 or (1 <= value < math.inf and not value % 1))
