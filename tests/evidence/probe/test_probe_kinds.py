from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from transformers import BatchEncoding

import frostline as fl
from frostline.errors import ModelError
from tests.evidence.probing import IDS, LABELS, PAIR, TEXTS, build, moved, probe_of, real_step
from tests.evidence.states import state
from tests.models import Plain, checkpoint_activations, tiny

if TYPE_CHECKING:
    from collections.abc import Iterator

# Kinds of models


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks for it
def test_adapters() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    model = peft.get_peft_model(tiny("bert"), config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = state(model, optimizer)
    found = probe_of(model, optimizer)
    assert state(model, optimizer) == before
    assert found.model_class == "BertForSequenceClassification"
    # While B is 0, A has a gradient of 0, and decay alone moves it.
    words = {parameter.name: parameter.gradient for parameter in found.parameters if parameter.trainable}
    assert {word for name, word in words.items() if "lora_A" in name} == {"zero"}
    assert {word for name, word in words.items() if "lora_B" in name} == {"yes"}
    assert moved(found) == set(words)
    bare = probe_of(model)  # without decay, A stays in the first step
    assert {parameter.cause for parameter in bare.surprises} == {"its gradient is 0"}
    assert {parameter.name for parameter in bare.surprises} == {name for name in words if "lora_A" in name}


@pytest.fixture
def one_process(tmp_path: Any) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("views", [False, True])
def test_distributed(views: bool) -> None:
    model = nn.parallel.DistributedDataParallel(tiny("bert"), gradient_as_bucket_view=views)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(2):
        real_step(model, optimizer)
        before = state(model, optimizer)
        found = probe_of(model, optimizer)
        assert state(model, optimizer) == before
    assert found.ok
    assert found.parameters[0].name == "module.bert.embeddings.word_embeddings.weight"
    real_step(model, optimizer)


def test_compiled() -> None:
    model = cast("nn.Module", torch.compile(tiny("bert"), backend="eager"))
    before = state(model)
    found = probe_of(model)
    assert state(model) == before
    assert found.ok


class Sparse(nn.Module):
    """Its embeddings get sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4, sparse=True)
        self.head = nn.Linear(4, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.head(self.embed(ids).mean(dim=1)))


def test_sparse_gradients() -> None:
    model = Sparse()
    F.cross_entropy(model(IDS), LABELS).backward()  # type: ignore[no-untyped-call]
    kept, values = model.embed.weight.grad, model.embed.weight.detach().clone()
    found = fl.probe(model, PAIR, torch.optim.SGD(model.parameters(), lr=0.1), loss=F.cross_entropy)
    assert found.ok
    assert model.embed.weight.grad is kept
    assert torch.equal(model.embed.weight, values)


def test_a_layer_that_is_compiled_by_itself() -> None:
    model = build("bert")
    model.bert.encoder.layer[0] = torch.compile(model.bert.encoder.layer[0], backend="eager")
    before = state(model)
    assert probe_of(model).ok
    assert state(model) == before


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant: bool) -> None:
    model = build("bert")
    plain = probe_of(model)
    checkpoint_activations(model, reentrant=reentrant)
    before = state(model)
    found = probe_of(model)
    assert state(model) == before
    assert found.ok
    assert found.loss == plain.loss


def test_mixed_precision() -> None:
    model = build("bert")
    seen: list[torch.dtype] = []
    model.bert.pooler.dense.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    before = state(model)
    found = probe_of(model, autocast=torch.bfloat16)
    assert seen == [torch.bfloat16]
    assert state(model) == before
    assert found.ok


@pytest.mark.parametrize("overflows", [False, True])
def test_a_gradient_scaler(overflows: bool) -> None:
    model = build("bert")
    optimizer = torch.optim.AdamW(model.parameters())
    factor = 1e10 if overflows else 1.0
    scaler = torch.amp.GradScaler("cpu", init_scale=1e30 if overflows else 16.0, growth_interval=1)
    for _ in range(2):  # before and after its first use
        before, held = state(model, optimizer), scaler.state_dict()
        found = fl.probe(model, TEXTS, optimizer, scaler=scaler, loss=lambda output, _: output.loss * factor)
        assert state(model, optimizer) == before
        assert scaler.state_dict() == held
        assert found.skipped == overflows
        assert bool(moved(found)) != overflows
        scaler.scale(torch.ones(1))
    if overflows:
        assert found.verdict.startswith("The gradient scaler skipped the step")
        assert not found.ok


def test_what_accelerate_prepared() -> None:
    from accelerate import Accelerator  # type: ignore[import-untyped]
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    base = tiny("bert")
    model, optimizer = accelerator.prepare(base, torch.optim.AdamW(base.parameters(), lr=1e-3))
    before = state(model, optimizer.optimizer)
    found = probe_of(model, optimizer)
    assert state(model, optimizer.optimizer) == before
    assert found.optimizer == "AdamW, learning rate 0.001"
    AcceleratorState._reset_state(reset_partial_state=True)


# Batches and results


@pytest.mark.parametrize(
    "batch", [TEXTS, BatchEncoding(cast("Any", TEXTS)), TEXTS | {"attention_mask": torch.ones_like(IDS)}]
)
def test_batches(batch: Any) -> None:
    assert fl.probe(tiny("bert"), batch).ok


def test_a_loss_of_one_s_own() -> None:
    ids = {"input_ids": IDS}
    found = fl.probe(tiny("bert"), ids, loss=lambda output, batch: output.logits[batch["input_ids"][:, 0] > 0].sum())
    assert found.ok
    assert fl.probe(Plain(), IDS, loss=torch.sum).loss is not None


@pytest.mark.parametrize("batch", [{"input_ids": IDS}, PAIR[:1]])
def test_no_loss_is_said(batch: Any) -> None:
    model = build("bert") if isinstance(batch, dict) else Plain()
    before = state(model)
    with pytest.raises(ModelError, match=r"gave no loss\.\nPut labels into the batch, or give loss=…"):
        fl.probe(model, batch)
    assert state(model) == before


def test_a_model_without_values_is_refused() -> None:
    with pytest.raises(ModelError, match="is on the meta device"):
        fl.probe(tiny("bert", meta=True), TEXTS)


def test_the_result_as_text_and_values() -> None:
    model = build("bert")
    fl.freeze(model, "embeddings, layers[0]")
    found = probe_of(model)
    lines = str(found).splitlines()
    assert lines[0] == "A step changes 20 of 41 parameter tensors: layers[1], pooler, head."
    assert lines[2].split("  ")[0] == "unit"
    assert [line.split("  ")[0] for line in lines[3:8]] == ["head", "pooler", "layer 1", "layer 0", "embeddings"]
    assert lines[-1].startswith("Optimizer: AdamW, learning rate 5e-05 (built for the probe); loss 0.6")
    values = found.to_dict()
    assert values["changes"] == "layers[1], pooler, head"
    assert [entry["moved"] for entry in values["rows"]] == ["no", "no", "yes", "yes", "yes"]
    assert values["parameters"]["classifier.weight"]["gradient"] == "yes"
    assert values["parameters"]["classifier.weight"]["cause"] is None
