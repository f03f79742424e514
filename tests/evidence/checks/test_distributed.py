from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel

import frostline as fl
from tests.evidence.checks.cases import found, must_find
from tests.models import Plain, batch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def _one_process(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("_one_process")
def test_frozen_after_ddp() -> None:
    model = Plain()
    wrapped = DistributedDataParallel(model)
    assert found("frozen-after-ddp", wrapped) is None
    frozen = fl.freeze(model, "embed")
    row = must_find("frozen-after-ddp", wrapped)
    assert (row.severity, row.names) == ("error", ("module.embed.weight",))
    assert "no longer come" in row.cause
    again = DistributedDataParallel(model)
    assert found("frozen-after-ddp", again) is None
    frozen.restore()
    assert "unshared" in must_find("frozen-after-ddp", again).cause


@pytest.mark.usefixtures("_one_process")
def test_ddp_unused() -> None:
    model = Plain()
    assert found("ddp-unused", DistributedDataParallel(model), None, batch()) is None
    model.spare = nn.Linear(2, 2)
    row = must_find("ddp-unused", DistributedDataParallel(model), None, batch())
    assert (row.severity, row.names) == ("error", ("module.spare.weight", "module.spare.bias"))
    searching = DistributedDataParallel(model, find_unused_parameters=True)
    assert found("ddp-unused", searching, None, batch()) is None
    fl.freeze(model, "spare")
    assert found("ddp-unused", DistributedDataParallel(model), None, batch()) is None
    assert found("ddp-unused", model, None, batch()) is None


@pytest.mark.usefixtures("_one_process")
@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`:UserWarning")
def test_fsdp_mixed() -> None:
    def wrapped(*, mixed: bool) -> FullyShardedDataParallel:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        model[0].requires_grad_(not mixed)
        return FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))

    row = must_find("fsdp-mixed", wrapped(mixed=True))
    assert row.severity == "warning"
    assert found("fsdp-mixed", wrapped(mixed=False)) is None
