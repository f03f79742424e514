from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tests.thinning import one_in
from tests.zoo.build import CANNOT_BUILD, build, model_types, tiny_config
from tests.zoo.inputs import LENGTHS
from tests.zoo.shrink import EXPERTS, LAYERS, LAYERS_OF_TWO, TOP_K
from tests.zoo.traits import NEEDS_TRAIN_MODE, PADDING_SHOWS

if TYPE_CHECKING:
    from tests.zoo.build import Specimen

TYPES = [model_type for model_type in model_types() if model_type not in CANNOT_BUILD]
HYBRIDS = ("jamba", "minimax", "qwen3_5", "qwen3_5_text", "qwen3_next", "zamba", "zamba2")
WITH_EXPERTS = (
    *("axk1", "axk2", "deepseek_v2", "deepseek_v3", "gpt_oss", "hunyuan_v1_moe", "jamba", "jetmoe", "minimax"),
    *("mistral4", "mixtral", "phimoe", "qwen2_moe", "qwen3_moe", "qwen3_next"),
)
# A larger model means that a size of some config has a new name, which `shrink` does not know.
MOST_PARAMETERS = 300_000
# Parts that no text reaches. Among the others, those for entities, boxes or other languages get no gradient either.
FOR_IMAGES = ("vision", "visual", "connector", "projector")
LEAST_WITH_GRADIENT = 0.6


def _logits(specimen: Specimen, row: int | None = None) -> torch.Tensor:
    """Logits of the whole batch; or of one text alone, cut to its length."""
    batch = specimen.batch
    if row is not None:
        batch = {name: tensor[row : row + 1, : LENGTHS[row]] for name, tensor in batch.items()}
    with torch.no_grad():
        logits: torch.Tensor = specimen.model(**batch).logits
    return logits


@pytest.mark.parametrize("model_type", TYPES)
def test_forward_and_backward_are_finite(model_type: str) -> None:
    specimen = build(model_type)
    assert not specimen.model.training
    specimen.model.train(not specimen.backward_in_eval)

    output = specimen.model(**specimen.batch, labels=specimen.labels)
    output.loss.backward()

    named = dict(specimen.model.named_parameters())
    parameters = list(named.values())
    assert sum(parameter.numel() for parameter in parameters) < MOST_PARAMETERS
    assert all(parameter.dtype == torch.float32 for parameter in parameters)
    assert output.logits.shape == (len(LENGTHS), 3)
    assert torch.isfinite(output.loss)
    assert all(parameter.grad is None or torch.isfinite(parameter.grad).all() for parameter in parameters)
    for_text = [parameter for name, parameter in named.items() if not any(word in name for word in FOR_IMAGES)]
    moved = sum(parameter.grad is not None and bool(parameter.grad.any()) for parameter in for_text)
    assert moved >= LEAST_WITH_GRADIENT * len(for_text)


@pytest.mark.parametrize("model_type", one_in(5, TYPES))
def test_same_seed_gives_same_values(model_type: str) -> None:
    state = torch.random.get_rng_state()
    first, second, other = build(model_type), build(model_type), build(model_type, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())

    assert _same(first.model.state_dict(), second.model.state_dict())
    assert _same(first.batch, second.batch)
    assert torch.equal(_logits(first), _logits(second))
    assert not torch.allclose(_logits(first), _logits(other), atol=1e-2)


@pytest.mark.parametrize("model_type", one_in(5, TYPES))
def test_padding_is_real_and_shows_only_where_noted(model_type: str) -> None:
    specimen = build(model_type)
    pad = specimen.model.config.get_text_config().pad_token_id
    real = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    assert torch.equal(specimen.batch["input_ids"] != pad, real)
    assert torch.equal(specimen.batch.get("attention_mask", real).bool(), real)

    together = _logits(specimen)
    drift = max(float((_logits(specimen, row) - together[row]).abs().max()) for row in range(len(LENGTHS)))

    assert (drift < 1e-4) == specimen.padded


@pytest.mark.parametrize("model_type", sorted(CANNOT_BUILD))
def test_what_cannot_be_built_cannot(model_type: str) -> None:
    with pytest.raises(ImportError):
        build(model_type)


def test_exceptions_are_few_and_registered() -> None:
    assert set(CANNOT_BUILD) == {"layoutlmv2"}
    assert set(PADDING_SHOWS) | NEEDS_TRAIN_MODE | set(HYBRIDS) | set(WITH_EXPERTS) <= set(TYPES)


@pytest.mark.parametrize("model_type", TYPES)
def test_there_are_layers_to_slice(model_type: str) -> None:
    config = tiny_config(model_type)
    if not config.is_encoder_decoder:
        layers = "num_self_attends_per_block" if model_type == "perceiver" else "num_hidden_layers"
        assert getattr(config.get_text_config(), layers) >= LAYERS
        return
    for part in ("encoder", "decoder"):
        sub_config = getattr(config, part, config)
        sub_config = getattr(sub_config, "text_config", sub_config)
        count = getattr(sub_config, f"{part}_layers", None) or sub_config.num_hidden_layers
        assert count >= LAYERS_OF_TWO


@pytest.mark.parametrize("model_type", HYBRIDS)
def test_hybrids_have_both_kinds_of_layers(model_type: str) -> None:
    assert len(set(tiny_config(model_type).get_text_config().layer_types)) == 2


@pytest.mark.parametrize("model_type", WITH_EXPERTS)
def test_experts_are_chosen_from(model_type: str) -> None:
    config = tiny_config(model_type)
    names = ("n_routed_experts", "num_local_experts", "num_experts")
    assert EXPERTS in [getattr(config, name, None) for name in names]
    assert TOP_K in [getattr(config, name, None) for name in ("num_experts_per_tok", "moe_topk")]


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
