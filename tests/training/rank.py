"""What one of several processes runs in the tests: a training on the CPU, its weights and report left in a folder."""

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

ROWS = 320  # several batches of the pass that fills the store


def main(folder: Path, store: str, batch_size: int) -> None:
    torch.set_num_threads(1)
    arguments = tokens.arguments(
        folder / "run",
        freeze=tokens.LOWER,
        store=store,
        store_dir=str(folder / "store"),
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        num_train_epochs=2,
        ddp_backend="gloo" if "RANK" in os.environ else None,
        eval_strategy="epoch",
        average_tokens_across_devices=False,  # it doubles the loss of models that count no tokens
    )
    rows, held_out = Dataset.from_list(tokens.rows(ROWS)), Dataset.from_list(tokens.rows(16, seed=1))
    trainer = fl.Trainer(tokens.model(), arguments, tokens.padding(), rows, held_out)
    trainer.train()
    report = trainer.engine_report
    assert report is not None
    rank = arguments.process_index
    evaluations = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    told = {"rows": report.rows, "computed": report.computed, "line": str(report), "eval": evaluations}
    (folder / f"report-{rank}.json").write_text(json.dumps(told), encoding="utf-8")
    if rank == 0:
        assert trainer.model is not None
        save_file(
            {name: tensor.contiguous() for name, tensor in trainer.model.state_dict().items()}, folder / "weights"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
