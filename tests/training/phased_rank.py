"""What one of several processes runs in the tests: a training by phases, its weights left in a folder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_file

import frostline as fl
from tests.training import tokens

PHASES = [
    fl.Phase("layers[2:], head", until="1 epoch", lr=1e-3),
    fl.Phase("head", until="3 steps"),
    fl.Phase("all", until="4 steps", layers="2 random every 2 steps", layer_decay=0.5),
    fl.Phase("all", layers="unsettled every 2 steps"),
]


def main(folder: Path, batch_size: int) -> None:
    torch.set_num_threads(1)
    arguments = tokens.arguments(
        folder / "run",
        store="memory",
        per_device_train_batch_size=batch_size,
        num_train_epochs=3,
        ddp_backend="gloo" if "RANK" in os.environ else None,
        average_tokens_across_devices=False,  # it doubles the loss of models that count no tokens
    )
    rows = Dataset.from_list(tokens.rows())
    trainer = fl.Trainer(tokens.model(), arguments, tokens.padding(), rows, schedule=PHASES)
    trainer.train()
    assert trainer.model is not None
    assert trainer.proof is not None
    if arguments.process_index == 0:
        weights = {name: tensor.contiguous() for name, tensor in trainer.model.state_dict().items()}
        save_file(weights, folder / "weights")
        phases = [[one.number, one.from_step, one.to_step, one.frozen, one.moved] for one in trainer.proof.phases]
        (folder / "phases.json").write_text(json.dumps({"ok": trainer.proof.ok, "phases": phases}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
