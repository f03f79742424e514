"""What cannot be used is refused in one or two lines, and nothing has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils.data import DataLoader

import frostline as fl
from frostline.errors import DataError, FrostlineError, ModelError
from tests.evidence.probing import IDS, TEXTS, build, probe_of
from tests.evidence.states import state
from tests.models import Plain, tiny

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [{"input_ids": IDS[0]}, {"input_ids": IDS[1]}]

BATCHES: list[tuple[Any, str]] = [
    ("some text", r"^The batch is 'some text', a str\.\nGive a mapping for model\(\*\*batch\)"),
    (3, r"^The batch is 3, a int\."),
    (DataLoader(ROWS), r"a DataLoader\.\nGive one of its batches: next\(iter\(…\)\)\.$"),  # type: ignore[arg-type]
    (iter([TEXTS]), r"a list_iterator\.\nGive one of its batches"),
    (ROWS, r"^The batch is a list of 2 rows\.\nCollate them"),
    ([1, 2], r"^The batch is \[1, 2\], a list without tensors\.\nGive a mapping for model"),
    (("a b",), r"^The batch is \('a b',\), a tuple without tensors\.\nGive a mapping for model"),
    ({}, r"^The batch is empty: \{\}\."),
    ((), r"^The batch is empty: \(\)\."),
    ({1: IDS}, r"^The batch has the key 1, which names no argument"),
    (
        {"input_ids": IDS[:0], "labels": torch.zeros(0)},
        r"^The batch has no rows: input_ids has the shape \(0, 7\)\.\nGive a row",
    ),
    (IDS[:0], r"^The batch has no rows: it has the shape \(0, 7\)"),
]


@pytest.mark.parametrize(("given", "message"), BATCHES)
def test_batches_that_cannot_be_used(given: Any, message: str) -> None:
    model = build("bert")
    before = state(model)
    for run in (lambda: fl.probe(model, given), lambda: fl.check(model, None, given)):
        with pytest.raises(DataError, match=message) as caught:
            run()
        assert len(str(caught.value).splitlines()) <= 2
        assert state(model) == before


@pytest.mark.parametrize(("given", "said"), [({"text": IDS}, "text"), ((IDS, IDS, IDS), "3 by position")])
def test_a_batch_that_does_not_fit_the_forward(given: Any, said: str) -> None:
    for run in (lambda: fl.probe(Plain(), given), lambda: fl.check(Plain(), None, given)):
        with pytest.raises(
            DataError, match=rf"^The batch \({said}\) does not fit the forward of Plain: .*\.\nIt takes: ids\.$"
        ):
            run()


def test_a_forward_s_own_error_is_not_taken_for_a_misfit() -> None:
    class Failing(Plain):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            raise TypeError(f"of its own, with {len(ids)} rows")

    with pytest.raises(TypeError, match=r"^of its own, with 4 rows"):
        fl.probe(Failing(), IDS)


def test_models_that_cannot_be_used() -> None:
    for run in (lambda model: fl.probe(model, TEXTS), lambda model: fl.check(model, None, TEXTS)):
        with pytest.raises(ModelError, match=r"^The model is 'bert', a str\.\nLoad it first, by from_pretrained\.$"):
            run("bert")
        with pytest.raises(ModelError, match="is on the meta device"):
            run(tiny("bert", meta=True))


def test_a_sparse_buffer_is_refused() -> None:
    model = Plain()
    model.register_buffer("graph", torch.eye(2).to_sparse())
    with pytest.raises(ModelError, match=r"^graph is a sparse tensor, which cannot be put back\.\nMake it dense"):
        probe_of(model)


@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`:UserWarning")
def test_a_model_that_is_spread_over_processes_is_refused(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        model = FullyShardedDataParallel(nn.Linear(4, 1), use_orig_params=True, device_id=torch.device("cpu"))
        for run in (lambda: fl.probe(model, torch.ones(1, 4)), lambda: fl.check(model, None, torch.ones(1, 4))):
            with pytest.raises(ModelError, match=r"are spread over processes.*\nGive the model from before"):
                run()
    finally:
        torch.distributed.destroy_process_group()


def test_arrays_are_not_taken_for_tensors() -> None:
    with pytest.raises(FrostlineError, match="a ndarray"):
        fl.probe(Plain(), np.zeros((2, 2)))
