"""Models of images whose head reads one position: the last layer runs for it alone, and it alone is stored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForImageClassification,
    BeitConfig,
    Dinov2Config,
    PretrainedConfig,
    ViTConfig,
    ViTMSNConfig,
)

import frostline as fl
from frostline.engine.engine import Engine
from tests.engine.answering import Stores, answer, assert_plain, engine_of

SIZES: dict[str, Any] = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "intermediate_size": 40}
SIZES |= {"num_hidden_layers": 3, "num_attention_heads": 2, "num_labels": 3}
SIZES |= dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"), 0.0)
POSITIONS = 17  # 4 by 4 patches, and the one that stands for the whole


def frozen(config: type[PretrainedConfig] = ViTConfig, freeze: str = "embeddings, layers[:2]") -> Any:
    torch.manual_seed(0)
    auto: Any = AutoModelForImageClassification
    model = auto.from_config(config(**SIZES))
    fl.freeze(model, freeze)
    return model.train()


def images(count: int = 5, size: int = 32, seed: int = 0) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, 3, size, size, generator=draw)
    return {"pixel_values": pixels, "labels": torch.arange(count) % 3}


def checked(model: Any, engine: Engine, batch: dict[str, Any]) -> Any:
    answer(model, engine, batch)
    assert engine.checked is not None
    return engine.checked.paths


@pytest.mark.parametrize("config", [ViTConfig, ViTMSNConfig])
def test_the_last_layer_runs_for_what_the_head_reads(config: type[PretrainedConfig]) -> None:
    model, stores = frozen(config), Stores()
    engine = engine_of(model, stores)
    paths = checked(model, engine, images())
    assert (paths.single, paths.is_padding_free, paths.is_fixed) == ("first token", False, True)
    assert paths.positions == POSITIONS
    for seed in range(1, 4):
        assert_plain(model, engine, images(seed=seed))
        assert_plain(model, engine, images(1, seed=seed))
    assert engine.answered == 7
    assert engine.reason is None


@pytest.mark.parametrize(("freeze", "positions"), [("backbone", []), ("backbone, ~norm", ["first token"])])
def test_above_all_layers_one_position_is_stored(freeze: str, positions: list[str]) -> None:
    model, stores = frozen(freeze=freeze), Stores()
    engine = engine_of(model, stores)
    paths = checked(model, engine, images())
    assert list(paths.stored_positions.values()) == positions
    for seed in range(2):
        assert_plain(model, engine, images(seed=seed))
    assert engine.reason is None
    (store,) = stores.made
    assert store.rows == 10
    assert store.bytes_used < 10 * POSITIONS * SIZES["hidden_size"]  # a quarter of all positions


@pytest.mark.parametrize("config", [Dinov2Config, BeitConfig])
def test_where_more_is_read_all_runs(config: type[PretrainedConfig]) -> None:
    model = frozen(config)
    engine = engine_of(model, Stores())
    paths = checked(model, engine, images())
    assert paths.one_position is paths.positions is paths.packing is None
    assert_plain(model, engine, images(seed=1))


def test_images_of_another_size_are_tried_anew() -> None:
    model = frozen()
    engine = engine_of(model, Stores())
    for size in (32, 48, 32, 48):
        assert_plain(model, engine, images(size=size) | {"interpolate_pos_encoding": True})
    assert engine.answered == 4
    assert engine.reason is None


def test_everything_trains() -> None:
    model = frozen(freeze="embeddings")
    fl.train_only(model, "all")
    engine = engine_of(model, Stores())
    assert checked(model, engine, images()).single == "first token"
    assert_plain(model, engine, images(seed=1))
