"""What people read of very different models, word for word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import frostline as fl
from tests.zoo.build import build

if TYPE_CHECKING:
    from collections.abc import Callable

# An encoder, a decoder, both halves, one layer that runs often, a tower for images beside the text,
# shared parts in a chain of two kinds, parts in parallel lists, blocks of layers, a head handed to the base, experts.
TYPES = ("bert", "gpt2", "t5", "albert", "gemma3", "zamba", "xlm", "funnel", "perceiver", "qwen2_moe")


@pytest.mark.parametrize("model_type", TYPES)
def test_as_text(model_type: str, golden: Callable[[str, str], None]) -> None:
    golden(model_type, str(fl.inspect(build(model_type).model)))


@pytest.mark.parametrize(
    ("model_type", "selector"),
    [
        ("t5", "embeddings, encoder.layers"),
        ("zamba", "layers[:3]"),
        ("albert", "backbone, ~pooler"),
        ("gemma3", "vision.layers, layers[:2]"),
    ],
)
def test_partly_frozen(model_type: str, selector: str, golden: Callable[[str, str], None]) -> None:
    model = build(model_type).model
    fl.freeze(model, selector)
    golden(f"{model_type}_partly", str(fl.inspect(model)))
