from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from frostline.engine.selfcheck.input_reads import reads_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

IDS, MASK, LABELS = torch.tensor([[1, 2, 0]]), torch.tensor([[1, 1, 0]]), torch.tensor([1])
INPUTS = {"ids": IDS, "mask": MASK, "labels": LABELS, "task": "a", "nothing": None}
TABLE = nn.Embedding(4, 2)


def _hands_on(ids: Tensor, mask: Tensor, labels: Tensor, **more: Any) -> Any:
    return TABLE(ids), mask, {"labels": labels, **more}


@pytest.mark.parametrize(
    ("run", "read"),
    [
        (lambda: None, []),
        (lambda: TABLE(IDS), ["ids"]),
        (lambda: _hands_on(**INPUTS), ["ids"]),  # type: ignore[arg-type]
        (lambda: TABLE(input=IDS), ["ids"]),
        (lambda: torch.where(MASK.bool(), IDS, 0), ["ids", "mask"]),
        (lambda: torch.where(condition=MASK > 0, input=IDS, other=LABELS), ["ids", "labels", "mask"]),
        (lambda: torch.cat([IDS, MASK]), ["ids", "mask"]),
        (lambda: torch.stack((IDS, MASK), dim=0), ["ids", "mask"]),
        (lambda: IDS + 1, ["ids"]),
        (lambda: 1 + IDS, ["ids"]),
        (lambda: IDS == MASK, ["ids", "mask"]),
        (lambda: IDS[0], ["ids"]),
        (lambda: torch.arange(3)[LABELS], ["labels"]),
        (lambda: IDS.sum().item(), ["ids"]),
        (MASK.tolist, ["mask"]),
        (LABELS.item, ["labels"]),
        (lambda: bool(LABELS), ["labels"]),
        (lambda: list(MASK), ["mask"]),
        (IDS.numpy, ["ids"]),
        (lambda: IDS.to(torch.float32).mean(), ["ids"]),
        (lambda: IDS.shape, ["ids"]),
        (IDS.clone, ["ids"]),
        (lambda: len(IDS), ["ids"]),
        (lambda: torch.zeros(3).index_copy_(0, LABELS, torch.ones(1)), ["labels"]),
        (lambda: nn.functional.cross_entropy(torch.zeros(1, 2), LABELS), ["labels"]),
    ],
)
def test_what_reaches_a_function_of_torch(run: Callable[[], object], read: list[str]) -> None:
    assert sorted(reads_of(INPUTS, run)) == read


def test_a_run_that_fails_is_told() -> None:
    def broken() -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        reads_of(INPUTS, broken)


def test_what_is_computed_is_as_without_it() -> None:
    found: list[Tensor] = []
    reads_of(INPUTS, lambda: found.append(TABLE(IDS).mean(1)))
    assert torch.equal(found[0], TABLE(IDS).mean(1))
