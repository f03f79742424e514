"""What units weigh and compute, beside what real small models do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import frostline as fl
from frostline.engine.cost.units import frost_line_of, unit_costs
from tests.models import Plain, tiny
from tests.zoo.build import build

if TYPE_CHECKING:
    from torch import nn

ZOO = ("bert", "roberta", "distilbert", "albert", "gpt2", "llama", "t5", "bart", "deberta-v2", "mixtral", "funnel")


def stepped(model: nn.Module, batch: dict[str, Any]) -> torch.optim.Optimizer:
    """A step of AdamW with a gradient for all that trains."""
    model.train()
    model(**batch).loss.backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(trained)
    optimizer.step()
    return optimizer


def bytes_of(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("kind", ZOO)
@pytest.mark.parametrize("freeze", [None, "embeddings", "backbone", "re:.*0.*"])
def test_bytes_are_those_of_a_real_step(kind: str, freeze: str | None) -> None:
    specimen = build(kind)
    model = specimen.model
    if freeze is not None:
        fl.freeze(model, freeze)
    units = unit_costs(model)
    optimizer = stepped(model, {**specimen.batch, "labels": specimen.labels})
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sum(unit.bytes for unit in units) == bytes_of([*model.parameters(), *model.buffers()])
    assert sum(unit.trainable_bytes for unit in units) == bytes_of(parameter.grad for parameter in trained)
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    assert sum(unit.optimizer_bytes for unit in units) == bytes_of(state)
    assert max(unit.largest_trainable_bytes for unit in units) == max(parameter.nbytes for parameter in trained)


def test_a_model_in_half_precision_has_half_the_bytes() -> None:
    whole, half = (unit_costs(model) for model in (tiny("bert"), tiny("bert").bfloat16()))
    assert sum(unit.bytes for unit in whole) > 1.9 * sum(unit.bytes for unit in half)
    assert [2 * unit.trainable_bytes for unit in half] == [unit.trainable_bytes for unit in whole]


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "albert", "gpt2", "llama"])
def test_flops_are_those_that_torch_counts(kind: str) -> None:
    tokens = 7
    model: nn.Module = tiny(kind, attn_implementation="eager").train(
        mode=False
    )  # of a fused attention, torch counts nothing
    ids = torch.arange(3, 3 + tokens)[None]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids)
    counted = counter.get_total_flops()
    reckoned = sum(
        unit.flops * (1 if unit.per_row else tokens) + unit.attention_flops * tokens**2 for unit in unit_costs(model)
    )
    assert reckoned == pytest.approx(counted, rel=0.02)


def test_of_experts_only_those_count_that_a_token_is_sent_to() -> None:
    model = build("mixtral").model
    config: Any = model.config
    layer = next(unit for unit in unit_costs(model) if unit.kind == "layer")
    inside = sum(parameter.numel() for name, parameter in model.named_parameters() if "layers.0.mlp.experts" in name)
    rest = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if "layers.0." in name and "experts" not in name and parameter.dim() > 1
    )
    assert inside > 0
    share = config.num_experts_per_tok / config.num_local_experts
    assert share < 1
    assert layer.flops == 2 * (inside * share + rest)


def test_shapes_are_enough() -> None:
    assert unit_costs(tiny("bert", meta=True)) == unit_costs(tiny("bert"))


def test_what_of_the_weights_trains() -> None:
    model = tiny("bert")
    fl.train_only(model, "layers[1], head")
    units = {unit.name: unit for unit in unit_costs(model)}
    assert {name: unit.trained_share for name, unit in units.items()} == {
        "embeddings": 0.0,
        "layer 0": 0.0,
        "layer 1": 1.0,
        "pooler": 0.0,
        "head": 1.0,
    }
    assert frost_line_of(tuple(units.values())) == 2
    assert units["layer 0"].trains is False


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
def test_adapters_train_a_small_share_of_a_layer() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny("bert"), peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"]))
    units = {unit.name: unit for unit in unit_costs(model)}
    assert 0 < units["layer 0"].trained_share < 0.1
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sum(unit.trainable_bytes for unit in units.values()) == bytes_of(trained)


def test_a_module_of_ones_own() -> None:
    model = Plain()
    units = unit_costs(model)
    assert sum(unit.parameters for unit in units) == sum(parameter.numel() for parameter in model.parameters())
    assert {unit.width for unit in units} == {0}


def test_what_a_layer_keeps_for_its_backward_pass_is_about_what_autograd_saves() -> None:
    from transformers import BertConfig, BertForSequenceClassification

    sizes: Any = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 2, "vocab_size": 50}

    def saved(layers: int) -> int:
        model = BertForSequenceClassification(BertConfig(num_hidden_layers=layers, **sizes)).train(mode=False)
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            address = tensor.untyped_storage().data_ptr()
            if address not in own:
                kept[address] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(input_ids=torch.arange(40)[None] + 5, labels=torch.tensor([0])).loss
            size = sum(kept.values())
            loss.backward()
        return size

    layer = next(
        unit
        for unit in unit_costs(BertForSequenceClassification(BertConfig(num_hidden_layers=1, **sizes)))
        if unit.kind == "layer"
    )
    assert (saved(3) - saved(2)) / 40 / 4 == pytest.approx(layer.saved, rel=0.15)
