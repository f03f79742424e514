"""TRL's SFTTrainer as it packs documents, inside `fl.fast` and without it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from datasets import Dataset

import frostline as fl
from tests.training import tiny

if TYPE_CHECKING:
    from pathlib import Path

trl = pytest.importorskip("trl")  # which is left out of the sets of other versions
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")  # of TRL

PACKING: dict[str, dict[str, Any]] = {
    "into rows of a length": {"packing": True, "packing_strategy": "bfd", "max_length": 32},
    "a batch into one row": {"padding_free": True, "max_length": None},
}
LOGGED = ("loss", "eval_loss", "eval_entropy", "mean_token_accuracy", "entropy", "num_tokens", "grad_norm")


def trainer(folder: Path, **options: Any) -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=300, **sizes))
    fl.freeze(model, "embeddings, layers[:3]")
    tokenizer = tiny.byte_pairs()
    tokenizer.pad_token = tokenizer.eos_token
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 28, (24,), generator=draw).tolist()
    ids = [torch.randint(3, 300, (length,), generator=draw).tolist() for length in lengths]
    shown: dict[str, Any] = {"report_to": "none", "disable_tqdm": True, "logging_steps": 1}
    shown |= {"eval_strategy": "epoch", "save_strategy": "no"}
    steps: dict[str, Any] = {"num_train_epochs": 3, "per_device_train_batch_size": 2, "learning_rate": 1e-3}
    config = trl.SFTConfig(str(folder), **steps, **shown, bf16=False, use_cpu=True, **options)
    rows = Dataset.from_dict({"input_ids": ids})
    return trl.SFTTrainer(model, config, train_dataset=rows, eval_dataset=rows, processing_class=tokenizer)


@pytest.mark.parametrize("case", PACKING)
def test_the_same_run_with_each_document_computed_once(tmp_path: Path, case: str) -> None:
    logged, weights, report = [], [], None
    for is_fast in (True, False):
        own = trainer(tmp_path, **PACKING[case])
        with fl.fast(own.model, store="memory") if is_fast else nullcontext() as engine:
            own.train()
        report = engine.report if engine is not None else report
        logged.append([log[name] for log in own.state.log_history for name in LOGGED if name in log])
        weights.append(list(own.model.state_dict().values()))
    assert len(logged[0]) > 90
    assert logged[0] == pytest.approx(logged[1], abs=1e-5)
    assert all(torch.allclose(one, other, atol=1e-4, rtol=0) for one, other in zip(*weights, strict=True))
    assert report is not None
    assert report.check.boundary == "layer 3"
    assert report.rows == 24
