"""Modules of plain torch, of torch's own parts, and around a model of transformers."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn
from transformers import BertModel

import frostline as fl
from tests.anatomy.test_modelmap import assert_complete, units
from tests.anatomy.test_tasks import CASES, assert_runs_in_order, pixels
from tests.models import batch, names_of, tiny_config
from tests.zoo.running import first_uses, out_of_order


class BasicBlock(nn.Module):
    """Two convolutions and a way around them, as in torchvision's ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return cast("torch.Tensor", (out + (x if self.downsample is None else self.downsample(x))).relu())


class ResNet(nn.Module):
    """Built and named as torchvision's ResNet-18 is, four channels wide."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 4, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4))
        self.layer2 = nn.Sequential(BasicBlock(4, 8, 2), BasicBlock(8, 8))
        self.layer3 = nn.Sequential(BasicBlock(8, 16, 2), BasicBlock(16, 16))
        self.layer4 = nn.Sequential(BasicBlock(16, 32, 2), BasicBlock(32, 32))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return cast("torch.Tensor", self.fc(self.avgpool(x).flatten(1)))


class Encoder(nn.Module):
    """A classifier on torch's own encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, norm=nn.LayerNorm(8), enable_nested_tensor=False)
        self.head = nn.Linear(8, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.head(self.encoder(self.embedding(ids))[:, 0]))


class Recurrent(nn.Module):
    """A classifier on an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 8, num_layers=2, batch_first=True)
        self.classifier = nn.Linear(8, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.classifier(self.lstm(self.embedding(ids))[0][:, -1]))


class OnBert(nn.Module):
    """A user's own module that holds a model of transformers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.projection = nn.Linear(16, 8)
        self.bert = BertModel(tiny_config("bert"))
        self.classifier = nn.Linear(8, 2)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden = self.bert(input_ids=input_ids).last_hidden_state[:, 0]
        return cast("torch.Tensor", self.classifier(self.projection(hidden)))


class TestResNet:
    def test_its_blocks_are_one_stack(self) -> None:
        model = ResNet().eval()
        anatomy = assert_complete(model)
        assert [unit.name for unit in anatomy.units] == units("embeddings", "layers 8", "head")
        (stack,) = anatomy.stacks
        assert stack.paths == ("layer1", "layer2", "layer3", "layer4")
        assert set(fl.select(model, "layers[:2]").names) == names_of(model, "layer1.")
        assert set(fl.select(model, "layers[-1]").names) == names_of(model, "layer4.1.")
        assert set(fl.select(model, "embeddings").names) == names_of(model, "conv1.", "bn1.")
        assert set(fl.select(model, "head").names) == names_of(model, "fc.")
        assert_runs_in_order(model, anatomy, {"x": pixels(32)["pixel_values"]})

    def test_statistics_of_frozen_blocks_stand_still(self) -> None:
        model = ResNet().train()
        before = fl.fingerprint(model)
        frozen = fl.freeze(model, "backbone, ~layers[-1]")
        model.train()
        model(pixels(32)["pixel_values"])
        proof = fl.verify(before, model, frozen.plan)
        proof.raise_for_drift()
        still = {tensor.name for tensor in proof.tensors if tensor.frozen and "running" in tensor.name}
        moved = {tensor.name for tensor in proof.tensors if tensor.moved}
        assert len(still) == 2 * (1 + 7 * 2 + 3)  # the first norm, two per frozen block, three ways around
        assert moved == {
            f"layer4.1.{norm}.{buffer}"
            for norm in ("bn1", "bn2")
            for buffer in ("running_mean", "running_var", "num_batches_tracked")
        }

    @pytest.mark.parametrize("frozen_mode", ["eval", "train"])
    def test_statistics_of_the_one_of_transformers(self, frozen_mode: Any) -> None:
        model = CASES["ResNet"][0]().train()
        before = fl.fingerprint(model)
        frozen = fl.freeze(model, "backbone", frozen_mode=frozen_mode)
        model.train()
        model(**pixels(32))
        proof = fl.verify(before, model, frozen.plan)
        proof.raise_for_drift()
        moved = {tensor.name for tensor in proof.tensors if tensor.moved}
        assert bool(moved) == (frozen_mode == "train")
        assert all("running" in name or "num_batches" in name for name in moved)


def test_the_encoder_of_torch() -> None:
    model = Encoder().eval()
    anatomy = assert_complete(model)
    assert [unit.name for unit in anatomy.units] == units("embeddings", "layers 3", "norm", "head")
    assert set(fl.select(model, "layers[1:]").names) == names_of(model, "encoder.layers.1.", "encoder.layers.2.")
    model.train()  # in eval mode torch takes a way through the layers that calls none of their parts
    assert_runs_in_order(model, anatomy, {"ids": batch(2, 5)})


def test_both_halves_of_torch_s_transformer() -> None:
    model = nn.Transformer(8, 2, 2, 3, 16, batch_first=True)
    anatomy = assert_complete(model)
    assert [(stack.name, len(stack)) for stack in anatomy.stacks] == [("encoder", 2), ("decoder", 3)]
    assert [unit.name for unit in anatomy.units] == units(
        "encoder layers 2", "encoder norm", "decoder layers 3", "decoder norm"
    )
    assert set(fl.select(model, "decoder.layers[:1]").names) == names_of(model, "decoder.layers.0.")
    inputs = {"src": torch.ones(1, 3, 8), "tgt": torch.ones(1, 2, 8)}
    assert_runs_in_order(model, anatomy, inputs)


class TestNoStack:
    def test_it_is_said(self) -> None:
        anatomy = assert_complete(Recurrent())
        assert anatomy.stacks == ()
        assert anatomy.notes == (
            "No chain of layers was found: name modules, parameters or globs instead of layers[…].",
        )
        assert anatomy.notes[0] in str(fl.inspect(Recurrent()))

    @pytest.mark.parametrize(
        ("selector", "beginnings"),
        [
            ("lstm", ("lstm.",)),
            ("lstm.*_l0", ("lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0", "lstm.bias_hh_l0")),
            (r"re:lstm\.weight.*l1", ("lstm.weight_ih_l1", "lstm.weight_hh_l1")),
            ("embeddings", ("embedding.",)),
            ("all, ~classifier", ("embedding.", "lstm.")),
        ],
    )
    def test_names_work(self, selector: str, beginnings: tuple[str, ...]) -> None:
        model = Recurrent()
        with fl.freeze(model, selector):
            frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
            model(batch(2, 5)).sum().backward()
        assert frozen == names_of(model, *beginnings)
        assert {name for name, parameter in model.named_parameters() if parameter.grad is None} == frozen


class TestAModelOfOnesOwnAroundOneOfTransformers:
    def test_the_backbone_is_the_model_inside(self) -> None:
        model = OnBert().eval()
        anatomy = assert_complete(model)
        assert anatomy.model_class == "OnBert"
        assert [unit.name for unit in anatomy.units] == units("embeddings", "layers 2", "pooler", "head")
        assert set(fl.select(model, "backbone").names) == names_of(model, "bert.")
        # The first of its head is registered before the backbone.
        assert set(fl.select(model, "head").names) == names_of(model, "projection.", "classifier.")
        uses = first_uses(model, anatomy, {"input_ids": batch(2, 5)})
        assert out_of_order(anatomy, uses) == []

    def test_freezing_its_backbone_leaves_the_rest(self) -> None:
        model = OnBert().train()
        before = fl.fingerprint(model)
        frozen = fl.freeze(model, "backbone")
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        model(batch(2, 5)).square().sum().backward()
        optimizer.step()
        proof = fl.verify(before, model, frozen.plan)
        assert proof.ok
        assert {tensor.name for tensor in proof.tensors if tensor.moved} == names_of(
            model, "projection.", "classifier."
        )
