"""Checkpoint folders in every form that they come in, made from one table of tensors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from tests.models import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Tensors = dict[str, torch.Tensor]
FORMS = ("single", "sharded", "pickle", "pickled shards", "old pickle")


def save_classifier(folder: Path, **overrides: Any) -> Path:
    """Save a tiny BERT classifier."""
    tiny("bert", **overrides).save_pretrained(folder)
    return folder


def tensors_of(folder: Path) -> Tensors:
    """The tensors of a folder with one safetensors file, in memory of their own: some versions map the file."""
    return {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}


def write(folder: Path, tensors: Tensors, config: Path, form: str = "single") -> Path:
    """Write a checkpoint.

    Args:
        folder: The folder to make.
        tensors: Its tensors.
        config: A folder whose configuration it gets.
        form: One of `FORMS`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_bytes((config / "config.json").read_bytes())
    safe = {name: tensor.contiguous() for name, tensor in tensors.items()}
    match form:
        case "single":
            save_file(safe, folder / "model.safetensors", metadata={"format": "pt"})
        case "pickle":
            torch.save(tensors, folder / "pytorch_model.bin")
        case "old pickle":
            torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
        case "sharded" | "pickled shards":
            suffix = "safetensors" if form == "sharded" else "bin"
            stem = "model" if form == "sharded" else "pytorch_model"
            weight_map: dict[str, str] = {}
            for number in range(3):
                part = dict(sorted(safe.items())[number::3])
                file = f"{stem}-0000{number + 1}-of-00003.{suffix}"
                if form == "sharded":
                    save_file(part, folder / file, metadata={"format": "pt"})
                else:
                    torch.save(part, folder / file)
                weight_map |= dict.fromkeys(part, file)
            index = json.dumps({"metadata": {}, "weight_map": weight_map})
            (folder / f"{stem}.{suffix}.index.json").write_text(index, encoding="utf-8")
    return folder


def altered(tensors: Tensors, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Tensors:
    """A table with every tensor replaced by what a function makes of it."""
    return {name: change(name, tensor.clone()) for name, tensor in tensors.items()}
