from __future__ import annotations

import numpy as np
import torch

from frostline.runs.most_wrong import most_wrong


def test_the_highest_losses_come_first() -> None:
    logits = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 4, 60)
    losses = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels), reduction="none")
    found = most_wrong(logits, labels)
    assert len(found) == 12
    wrong = [row for row in losses.argsort(descending=True).tolist() if logits[row].argmax() != labels[row]]
    assert [row for row, *_ in found] == wrong[:12]
    for row, label, given, loss in found:
        assert (label, given) == (labels[int(row)], logits[int(row)].argmax())
        assert abs(loss - float(losses[int(row)])) < 1e-3


def test_what_is_right_or_no_number_is_left_out() -> None:
    assert most_wrong(np.array([[2.0, 0.0], [np.nan, 0.0], [0.0, 3.0]]), np.array([0, 1, 0])) == [[2, 0, 1, 3.0486]]
