"""Image classification: scikit-learn's digits, enlarged, and a ViT-small of random weights, the two highest layers."""

from __future__ import annotations

from typing import Any, cast

from benchmarks import task
from benchmarks.job import Job
from benchmarks.models import SEED
from benchmarks.row import Row, Target

_SIZE = 224


def make(rows: int, tiny: bool) -> task.Task:
    """Twelve layers, 384 wide, patches of 16 by 16."""
    import torch
    from sklearn.datasets import load_digits
    from transformers import ViTConfig, ViTForImageClassification, default_data_collator, set_seed

    digits = load_digits()
    grey = torch.tensor(digits.images[:rows], dtype=torch.float32).div(8).sub(1).unsqueeze(1)  # (rows, 1, 8, 8)
    images = torch.nn.functional.interpolate(grey, size=(_SIZE, _SIZE), mode="bilinear").expand(-1, 3, -1, -1)
    size: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
    size |= {"intermediate_size": 1_536}
    if tiny:
        size = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    set_seed(SEED)
    return task.Task(
        model=ViTForImageClassification(cast("Any", ViTConfig)(**size, image_size=_SIZE, patch_size=16, num_labels=10)),
        freeze="embeddings, layers[:-2]",
        rows=[
            {"pixel_values": image, "labels": int(label)}
            for image, label in zip(images, digits.target[:rows], strict=True)
        ],
        collate=default_data_collator,
        source="scikit-learn's digits, enlarged to 224 by 224",
        tokens=len(images) * ((_SIZE // 16) ** 2 + 1),
    )


ROWS = (
    Row(
        name="vit-top2",
        work="image classification, ViT-small, train layers 10-11, norm and head, 3 epochs",
        peer="transformers.Trainer, same frozen",
        job=Job(top=2, epochs=3, rows=128),
        task=make,
        ours=task.frostline,
        theirs=task.transformers_trainer,
        target=Target(3),
    ),
)
