"""What is ahead of a training run: how often which texts are run, as far as that is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from frostline.engine.batch_inputs import layout_of
from frostline.engine.cost.costs import Work
from frostline.training.filling_pass import is_known, lengths_of
from frostline.training.views import FixedViews

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Ahead:
    """What is ahead of a training run.

    Attributes:
        work: How much.
        lengths: Real tokens per training row, int64, (rows,), where the store can be filled before the first step;
            None where rows are to be computed as they come.
    """

    work: Work
    lengths: NDArray[np.int64] | None


def ahead_of(
    args: Any, state: Any, done: int, end: int, loader: Any, evaluation: Any, inputs: Mapping[str, Any], processes: int
) -> Ahead:
    """Reckon what is ahead.

    Args:
        args: The Trainer's arguments.
        state: Its state.
        done: Optimizer steps that are behind.
        end: Those that are when it ends: the run's, or those of a phase of it.
        loader: What it takes the training batches from.
        evaluation: Its evaluation data: a data set, or several by name.
        inputs: One process's first batch, from which the rest is guessed where it is not known.
        processes: How many train.
    """
    layout = layout_of(inputs)
    rows, tokens = layout.count, layout.tokens
    batches = (end - done) * args.gradient_accumulation_steps
    per_epoch = _length(loader)
    total = getattr(loader, "total_batch_size", None) or rows * processes
    dataset = getattr(loader, "dataset", None)
    lengths = lengths_of(dataset) if per_epoch is not None and hasattr(loader, "collate_fn") else None
    if lengths is not None and len(lengths) >= ((per_epoch or 0) + 1) * total:
        lengths = None  # the sampler leaves rows out
    if lengths is not None:
        seen = {"rows": len(lengths), "tokens": int(lengths.sum())}
    else:  # of a stream every row counts as new
        count = (per_epoch or batches) * total
        seen = {"rows": count, "tokens": round(count * tokens / rows)}
    passes = batches / (per_epoch or batches)
    if isinstance(dataset, FixedViews):  # each epoch brings other rows, until those of the first come again
        views = min(dataset.count, max(1, math.ceil(passes)))
        seen, passes = {name: count * views for name, count in seen.items()}, passes / views
    held_out = [found for one in _each(evaluation) if (found := lengths_of(one)) is not None]
    work = Work(
        **seen,
        passes=passes,
        evaluation_rows=sum(map(len, held_out)),
        evaluation_tokens=sum(int(found.sum()) for found in held_out),
        evaluation_passes=_evaluations(args, state, done, end) if held_out else 0.0,
        processes=processes,
    )
    may_fill = passes >= 1 and is_known(getattr(loader, "collate_fn", None))
    return Ahead(work, lengths if may_fill else None)


def _length(loader: Any) -> int | None:
    try:
        return len(loader) or None
    except TypeError:
        return None


def _each(evaluation: Any) -> list[Any]:
    return list(evaluation.values()) if isinstance(evaluation, dict) else [evaluation]


def _evaluations(args: Any, state: Any, done: int, end: int) -> float:
    strategy = args.eval_strategy.value
    if strategy == "steps" and state.eval_steps:
        return float((end - done) // state.eval_steps)
    share = (end - done) / state.max_steps
    return float(math.ceil(state.num_train_epochs * share)) if strategy == "epoch" else 0.0
