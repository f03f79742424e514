from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from frostline.training.renamed import load_renamed
from tests.models import tiny
from tests.zoo.build import build

if TYPE_CHECKING:
    from pathlib import Path


def same(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def emptied(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def test_norms_by_their_old_names(tmp_path: Path) -> None:
    model = tiny("bert")
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    old = {
        name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): tensors[name] for name in tensors
    }
    assert old.keys() != tensors.keys()
    save_file(old, file, metadata={"format": "pt"})
    other = emptied(tiny("bert"))
    other.load_state_dict(old, strict=False)  # as transformers.Trainer does
    assert not same(other, model)
    load_renamed(other, str(tmp_path))
    assert same(other, model)


def test_experts_kept_one_by_one(tmp_path: Path) -> None:
    model = build("qwen2_moe").model
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert not stored.keys() <= model.state_dict().keys()
    other = emptied(build("qwen2_moe").model)
    other.load_state_dict(stored, strict=False)
    load_renamed(other, str(tmp_path))
    assert same(other, model)


def test_what_has_no_other_names_is_left_alone(tmp_path: Path) -> None:
    model = tiny("bert")
    load_renamed(model, str(tmp_path))
    model.save_pretrained(tmp_path)
    load_renamed(emptied(model), str(tmp_path))
    assert not any(parameter.any() for parameter in model.parameters())
    load_renamed(nn.Linear(1, 1), str(tmp_path))
