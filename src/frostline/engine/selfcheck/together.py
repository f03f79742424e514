"""Comparing a model's fast paths together on rows as they are, and giving up those that do not hold."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from frostline.base.random_state import seed_all
from frostline.engine.fast_paths import FastPaths
from frostline.engine.runner import Runner
from frostline.engine.selfcheck.comparison import Comparison, failed
from frostline.engine.selfcheck.result import PathCheck
from frostline.engine.selfcheck.trial_rows import rows_as_they_are, with_another
from frostline.store.packed import Packed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from torch import nn

    from frostline.engine.batch_inputs import Call
    from frostline.engine.interpose import Forward
    from frostline.engine.selfcheck.model_state import KeptState

_MOST_TOKENS = 512  # positions of the rows that are compared, one row in any case


def from_rows_alone(
    runner: Runner, call: Call, paths: FastPaths, dtype: torch.dtype | None = None
) -> dict[str, Packed]:
    """Compute what is stored of a batch, each row's values from the row alone.

    Args:
        runner: Runs the model.
        call: The batch.
        paths: What its forward is spared, replay included.
        dtype: What floats are stored as; None for their own.
    """
    call = call.with_aligned(paths.aligned) if paths.aligned is not None else call
    alone = [call.select([row]) for row in range(call.rows.count)]
    taps = [runner.tap(row if paths.whole else row.trimmed(), paths) for row in alone]
    values = {}
    for name in taps[0]:
        whole = torch.cat([own[name].values for own in taps])
        if dtype is not None and whole.is_floating_point():
            whole = whole.to(dtype).to(whole.dtype)
        values[name] = Packed(whole, torch.cat([own[name].lengths for own in taps]))
    return values


def fallbacks(paths: FastPaths) -> Iterator[FastPaths]:
    """Give some fast paths, then fewer and fewer of them."""
    yield paths
    if paths.one_position is not None:
        paths = replace(paths, single=None, folded=False, stored_positions={})
        if paths.positions is not None:  # which were of use for that alone
            paths = replace(paths, packing=None, places=None, calls=None, positions=None)
            paths = replace(paths, whole=paths.replay is not None)
        yield paths
    padded = replace(paths, packing=None, places=None, calls=None, trim=False)
    if paths.replay is not None:
        yield replace(paths, replay=None, whole=False)
        yield padded
        padded = replace(padded, replay=None, whole=False)
    yield padded
    yield replace(padded, products=False, tables=False, late_logits=False)


def settle(
    model: nn.Module,
    forward: Forward,
    call: Call,
    candidates: Iterable[FastPaths],
    *,
    per_token: frozenset[str],
    dtype: torch.dtype,
    stored: Callable[[Call], Mapping[str, Packed] | None] | None = None,
    kept: KeptState | None = None,
) -> tuple[FastPaths, PathCheck]:
    """Take the first of some sets of fast paths that gives the plain path's results on a few rows of a call.

    Args:
        model: The model inside its wrappers.
        forward: Its forward.
        call: The call; its rows are taken as they are.
        candidates: The sets, the fastest first.
        per_token: Names of outputs with one value per token.
        dtype: What values are rounded to.
        stored: Gives what is stored of some rows, for the first set; None to compute it from the rows.
        kept: What the model holds, as it is now; None to copy it.

    Returns:
        The set, none of the paths if no set holds; and how the first one compared.
    """
    rows = rows_as_they_are(call, _MOST_TOKENS)
    if call.described_by is not None and stored is None:
        rows = with_another(rows)
    runner = Runner(model, forward)
    plain = partial(forward, **rows.as_it_came())
    try:
        compares = Comparison(model, rows, plain, per_token=per_token, dtype=dtype, kept=kept)
    except Exception as error:  # noqa: BLE001 - the model's own code, given few rows
        return FastPaths(), failed("all", error)

    def run(paths: FastPaths, is_first: bool) -> Any:
        values = None
        if paths.replay is not None:
            values = stored(rows) if stored is not None and is_first else None
            values = from_rows_alone(runner, rows, paths) if values is None else values
            seed_all(0)
        return rows.given_out(runner.run(rows, paths, values, verifies=True))

    first: PathCheck | None = None
    for paths in candidates:
        check = compares.check("all", "all that was admitted, together", partial(run, paths, first is None))
        first = first or check
        if check.admitted:
            return paths, first
    return FastPaths(), first or PathCheck("all", admitted=False, how="nothing was tried")
