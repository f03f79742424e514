"""Whether a run learned more than to give every row the same answer, and what to thaw where it did not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from torch import nn

from frostline.anatomy.modelmap import ModelMap
from frostline.anatomy.wrappers import adapter_parts
from frostline.plan.describe import describe
from frostline.runs.baseline import Baseline

_UNLEARNED = 0.9  # of the same answer's loss; what could learn ended below it (docs/defaults.md)
_BY_HEART = 0.2  # likewise: more to train would not teach more


def next_to_thaw(model: nn.Module) -> str | None:
    """Write the selector of what is frozen, but for its topmost unit.

    Args:
        model: The model, frozen as it trained.

    Returns:
        What ``--freeze`` takes; ``""`` for nothing at all, and None where nothing is frozen.
    """
    anatomy = ModelMap.of(model)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    for unit in reversed(anatomy.units):
        if not frozen.isdisjoint(unit.parameter_names):
            return describe(anatomy, frozen.difference(unit.parameter_names))
    return None


def last_loss(history: Iterable[Mapping[str, float]]) -> float:
    """Mean of the training losses that were logged in the last epoch; nan for none."""
    logged = [entry for entry in history if "loss" in entry]
    losses = [entry["loss"] for entry in logged if entry["epoch"] > logged[-1]["epoch"] - 1]
    return sum(losses) / len(losses) if losses else math.nan


def shortfall(
    model: nn.Module,
    *,
    loss: float,
    same_answer: float,
    metrics: Mapping[str, float],
    baseline: Baseline | None,
    rows: int,
    warned: bool,
) -> str:
    """Say on what evidence a run learned too little, and what to do next.

    Args:
        model: The model, frozen as it trained.
        loss: Training loss of the last epoch.
        same_answer: Loss on the training rows of the best answer that is the same for each.
        metrics: Evaluation of the kept model; empty without evaluation rows.
        baseline: What one answer for all evaluation rows reaches; None without them.
        rows: Evaluation rows.
        warned: Whether steps or rate were likely too little, which is to be mended first.

    Returns:
        Two lines; ``""`` where nothing speaks for it.
    """
    evidence = []
    if loss > _UNLEARNED * same_answer:
        evidence.append(f"the training loss ended at {loss:.4f}; the same answer for every row has {same_answer:.4f}")
    if metrics and baseline is not None and not _is_better(metrics, baseline.metrics, rows):
        evidence.append("the evaluation is no better than the baseline beyond the noise of so few rows")
    if not evidence:
        return ""
    selector = next_to_thaw(model)
    adapted = any(adapter_parts(model))
    first = "First mend what the warning names. " if warned else ""
    if loss < _BY_HEART * same_answer:
        mend = "It knows its training rows by heart: more rows would help."
    elif adapted:
        mend = "Adapt more layers, or with a higher --rank; or train more --epochs."
    elif selector is None:
        mend = "Everything trains: more rows or --epochs would help."
    else:
        mend = f'Thaw the next unit: --freeze "{selector}".' if selector else "Thaw the last unit: no --freeze."
    return f"Learned too little: {', and '.join(evidence)}.\n{first}{mend}"


def _is_better(metrics: Mapping[str, float], same: Mapping[str, float], rows: int) -> bool:
    """Whether a metric is better than that of the same answer for every row by two standard errors."""
    if "rmse" in metrics:  # relative standard error of a root mean square of n values: 1/sqrt(2n)
        return not metrics["rmse"] > same["rmse"] * (1 - 2 / math.sqrt(2 * rows))
    return any(  # standard error of a share p of n rows: sqrt(p(1-p)/n)
        metrics[name] > same[name] + 2 * math.sqrt(same[name] * (1 - same[name]) / rows)
        for name in ("accuracy", "macro_f1")
    )
