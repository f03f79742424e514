"""What is said after a run whose training could not learn: on what evidence, and what to thaw next."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from frostline.anatomy.modelmap import ModelMap
from frostline.data.labels import REGRESSION
from frostline.plan.describe import describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import nn

    from frostline.training.baseline import Baseline

_UNLEARNED = 0.8  # of the baseline's loss; what could learn ended below it (docs/defaults.md)
_ERRORS = 2  # standard errors that a metric has to be better by


def next_to_thaw(model: nn.Module) -> str | None:
    """Write the selector that freezes what is frozen, but for the topmost unit of it.

    Args:
        model: The model, as it trained.

    Returns:
        What to give to ``--freeze``; ``""`` to freeze nothing; None where nothing is frozen.
    """
    anatomy = ModelMap.of(model)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    for unit in reversed(anatomy.units):
        if not frozen.isdisjoint(unit.parameter_names):
            return describe(anatomy, frozen.difference(unit.parameter_names))
    return None


def last_loss(history: Iterable[Mapping[str, float]]) -> float:
    """Mean training loss over what was logged in the last epoch; nan where nothing was."""
    logged = [entry for entry in history if "loss" in entry]
    losses = [entry["loss"] for entry in logged if entry["epoch"] > logged[-1]["epoch"] - 1]
    return sum(losses) / len(losses) if losses else math.nan


def shortfall(
    metrics: Mapping[str, float], baseline: Baseline | None, rows: int, loss: float, constant_loss: float
) -> Iterator[str]:
    """Say in what the training fell short of learning.

    Args:
        metrics: Evaluation of the kept model; empty without evaluation rows.
        baseline: What one answer for all evaluation rows reaches; None without them.
        rows: Evaluation rows.
        loss: Mean training loss of the last epoch.
        constant_loss: Loss of the same answer for each training row.
    """
    if loss > _UNLEARNED * constant_loss:
        yield f"the training loss ended at {loss:.4f}, and the same answer for every row has {constant_loss:.4f}"
    if baseline is not None and metrics and not _is_better(metrics, baseline.metrics, rows):
        yield f"on the evaluation rows it is no better than the baseline beyond the noise of {rows:,} rows"


def _is_better(metrics: Mapping[str, float], baseline: Mapping[str, float], rows: int) -> bool:
    """Whether one of the metrics is better by more than its sampling noise."""
    if "rmse" in metrics:  # the standard error of a root mean square is its value by the root of twice the rows
        return metrics["rmse"] < baseline["rmse"] * (1 - _ERRORS / math.sqrt(2 * rows))
    noise = {name: _ERRORS * math.sqrt(baseline[name] * (1 - baseline[name]) / rows) for name in metrics}
    return any(metrics[name] > baseline[name] + noise[name] for name in ("accuracy", "macro_f1"))
