"""The engine's fast paths give the plain forward's results, on other batches than the one they were admitted on."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

import pytest
import torch

from frostline.engine.replay.replay import NotReplayable
from tests.thinning import one_in
from tests.zoo import page
from tests.zoo.admitting import call_of, far, fast_outcome, freeze_beneath, outcome, survey
from tests.zoo.build import CANNOT_BUILD, model_types
from tests.zoo.inputs import make_batch
from tests.zoo.shrink import HEAD_DIM, HEADS

if TYPE_CHECKING:
    from tests.zoo.admitting import Survey

TYPES = [model_type for model_type in model_types() if model_type not in CANNOT_BUILD]
LOGITS, GRADIENTS, DOUBLE = 1e-5, 1e-4, 1e-9  # the promise, relative as the self-check takes it

# Two texts have the same length, one is very short, and there is more padding than the longest needs.
OTHER, OTHER_PADDING = (9, 14, 3, 14, 6), 3
# Sizes that other axes of the tiny models have as well: as many texts as heads, as many positions as a head is wide.
COINCIDING = (HEAD_DIM, 5, HEAD_DIM, 3)[:HEADS]

# What is not served; whoever serves it takes it out.
NOT_PADDING_FREE = frozenset(
    {
        *("convbert", "deberta-v2", "doge", "flaubert", "funnel", "ibert", "nystromformer", "reformer", "t5gemma"),
        *("t5gemma2", "xlm", "xmod", "yoso"),
        # Their layers run on tokens that were shortened, stretched or turned round on the way.
        *("canine", "longformer", "perceiver", "squeezebert", "xlnet"),
    }
)
# Units beneath which layers run.
NOT_REPLAYED = {
    "reformer": {
        "layer 1",
        "layer 2",
        "layer 3",
        "head",
    },  # nothing is admitted, as it works in chunks of the padded text
}
# Where what is stored of a text depends on its padding.
STORED_WITH_PADDING = frozenset(
    {
        *("canine", "convbert", "funnel", "ibert", "longformer", "mobilebert", "nomic_bert", "nystromformer"),
        *("t5gemma", "t5gemma2", "ultrabert", "ultravbert", "xlnet", "yoso"),
    }
)
# Where what is stored has another length in every batch, so that each runs from its texts.
ANOTHER_SHAPE = frozenset({"funnel"})
# Where rounding of 1e-6 in large activations turns a ReLU over; in float64 the gradients agree, which a test holds.
ROUNDED = {"mobilebert": 1e-2}
ONE_POSITION = {
    "first token": {
        *("bert", "camembert", "data2vec-text", "distilbert", "electra", "ernie", "esm", "esmc", "gte"),
        *("jina_embeddings_v3", "layoutlm", "modernbert", "modernvbert", "nomic_bert", "roberta"),
        *("roberta-prelayernorm", "roc_bert", "ultrabert", "ultravbert", "xlm-roberta", "xlm-roberta-xl"),
    },
    "last token": {
        *("arcee", "axk1", "biogpt", "cohere_compass_text", "ctrl", "deepseek_v2", "deepseek_v3", "exaone4", "gemma"),
        *("gemma3", "gemma3_text", "glm", "glm4", "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neox", "helium"),
        *("hunyuan_v1_dense", "hunyuan_v1_moe", "jetmoe", "llama", "minicpm3", "ministral", "mistral", "mixtral"),
        *("modernbert-decoder", "nemotron", "olmo", "olmo2", "olmo3", "opt", "persimmon", "phi", "phi3", "phimoe"),
        *("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "stablelm", "starcoder2"),
    },
}


@cache
def surveyed(model_type: str) -> Survey:
    return survey(model_type)


@pytest.mark.parametrize("model_type", one_in(5, TYPES))
def test_what_is_admitted_is_right_on_another_batch(model_type: str) -> None:
    assert_right(surveyed(model_type))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", TYPES)
def test_every_depth_is_right_and_as_the_page_says(model_type: str) -> None:
    found = survey(model_type, every_depth=True)
    assert_right(found)
    _, engine, _ = page.parts(page.PAGE.read_text(encoding="utf-8"))
    assert not page.is_of_this_version() or page.rows_of(engine)[model_type] == page.engine_row(found), (
        "run make architectures"
    )


def assert_right(found: Survey) -> None:
    """What is admitted gives the plain path's results on another batch."""
    model, model_type = found.specimen.model, found.specimen.model_type
    call = call_of(model, make_batch(model_type, model, 1, OTHER, OTHER_PADDING))
    for boundary, check in found.checks.items():
        freeze_beneath(model, found.anatomy, boundary)
        if boundary is None and not found.specimen.backward_in_eval:
            freeze_beneath(model, found.anatomy, "head")
        plain = outcome(model, lambda: model(**call.inputs))
        try:
            own = fast_outcome(model, call, check.paths)
        except NotReplayable:
            assert model_type in ANOTHER_SHAPE
            continue
        logits, gradients = far(own, plain)
        assert logits <= LOGITS, f"at {boundary}, admitted: {check}"
        assert gradients <= ROUNDED.get(model_type, GRADIENTS), f"at {boundary}, admitted: {check}"


@pytest.mark.parametrize("model_type", one_in(5, TYPES))
def test_sizes_that_coincide_are_not_mixed_up(model_type: str) -> None:
    found = surveyed(model_type)
    model = found.specimen.model
    batch = make_batch(model_type, model, 2, COINCIDING)
    freeze_beneath(model, found.anatomy, "head")
    for rows, boundary in ((slice(None), list(found.checks)[len(found.checks) // 2]), (slice(1), None)):
        call = call_of(model, {name: value[rows] for name, value in batch.items()})
        plain = outcome(model, partial(model, **call.inputs))
        try:
            own = fast_outcome(model, call, found.checks[boundary].paths)
        except NotReplayable:
            assert model_type in ANOTHER_SHAPE
            continue
        logits, gradients = far(own, plain)
        assert logits <= LOGITS, f"{rows} at {boundary}"
        assert gradients <= GRADIENTS, f"{rows} at {boundary}"


@pytest.mark.parametrize("model_type", one_in(5, TYPES))
def test_all_is_admitted_but_what_is_named(model_type: str) -> None:
    found = surveyed(model_type)
    depths = {depth for depth in found.checks if depth is not None}
    assert {depth for depth in depths if not found.is_replayed(depth)} == NOT_REPLAYED.get(model_type, set()) & depths
    assert any(found.checks[depth].paths.whole for depth in depths) == (model_type in STORED_WITH_PADDING)
    whole = found.checks[None]
    assert (whole.paths.packing is None) == (model_type in NOT_PADDING_FREE), str(whole)
    named = next((position for position, types in ONE_POSITION.items() if model_type in types), None)
    assert whole.paths.single == named, str(whole)


@pytest.mark.parametrize("model_type", sorted(ROUNDED))
def test_what_rounding_explains_is_exact_in_double_precision(model_type: str) -> None:
    found = survey(model_type, dtype=torch.float64)
    model = found.specimen.model
    call = call_of(model, make_batch(model_type, model, 1, OTHER, OTHER_PADDING))
    for boundary, check in list(found.checks.items())[1:2]:
        freeze_beneath(model, found.anatomy, boundary)
        own, plain = fast_outcome(model, call, check.paths), outcome(model, lambda: model(**call.inputs))
        assert check.boundary == boundary
        assert max(far(own, plain)) <= DOUBLE


def test_coverage_is_what_was_promised() -> None:
    types = set(TYPES)
    named = {*NOT_PADDING_FREE, *NOT_REPLAYED, *STORED_WITH_PADDING, *ANOTHER_SHAPE, *ROUNDED}
    assert types >= named.union(*ONE_POSITION.values())
    assert len(types - NOT_REPLAYED.keys() - ANOTHER_SHAPE) >= 120
    assert len(types - NOT_PADDING_FREE) >= 75
    assert sum(map(len, ONE_POSITION.values())) >= 60
