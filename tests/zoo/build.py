"""Tiny models of every type that transformers registers for sequence classification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from tests.zoo.inputs import LENGTHS, make_batch
from tests.zoo.rules import CONFIG_RULES
from tests.zoo.shrink import shrink
from tests.zoo.traits import NEEDS_TRAIN_MODE, PADDING_SHOWS
from tests.zoo.weights import scatter_weights

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

CANNOT_BUILD: dict[str, str] = {
    "layoutlmv2": "its visual backbone needs detectron2, which has no release that installs as a package",
}
# In transformers 5.0 the first wants token types to train, the second is built otherwise, and the third ends early
# where it is so small; docs/compatibility.md says so.
_LEFT_OUT = ("gemma3", "t5gemma2", "zamba2") if transformers.__version__.startswith("5.0.") else ()


@dataclass(frozen=True)
class Specimen:
    """A tiny model and a batch for it.

    Attributes:
        model_type: As transformers registers it.
        model: In fp32, eval mode, on the CPU, with random weights that make every part matter.
        batch: Ready for ``model(**batch)``: ``input_ids`` (3, 12) padded on the right to lengths 12, 7 and 5,
            ``attention_mask`` where the model takes one, and what else the type needs.
        labels: One class per text, (3,).
        padded: Whether a text's logits stay the same when it stands alone, without its padding.
        padding_reason: Where they do not, why; the batch is padded all the same. Else empty.
        backward_in_eval: Whether a backward pass is possible in eval mode.
    """

    model_type: str
    model: PreTrainedModel
    batch: dict[str, torch.Tensor]
    labels: torch.Tensor
    padded: bool
    padding_reason: str
    backward_in_eval: bool


def model_types() -> tuple[str, ...]:
    """Every type that transformers registers for sequence classification."""
    return tuple(name for name in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES if name not in _LEFT_OUT)


def tiny_config(model_type: str, *, num_labels: int = 3) -> PreTrainedConfig:
    """The type's default config, made small, with a pad token where the model looks for it."""
    rule = CONFIG_RULES.get(model_type, {})
    config: PreTrainedConfig = shrink(CONFIG_MAPPING[model_type](), rule | {"num_labels": num_labels})
    text_config = config.get_text_config()
    if getattr(text_config, "pad_token_id", None) is None:
        text_config.pad_token_id = 0
    config.pad_token_id = text_config.pad_token_id
    return config


def build(model_type: str, *, seed: int = 0, num_labels: int = 3) -> Specimen:
    """Build a tiny model of a type and a batch for it; the same seed gives the same values.

    Args:
        model_type: One of `model_types`, but none of `CANNOT_BUILD`.
        seed: For weights and batch; the global random state is left alone.
        num_labels: Number of classes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        auto = cast("Any", AutoModelForSequenceClassification)
        model: PreTrainedModel = auto.from_config(tiny_config(model_type, num_labels=num_labels)).eval()
    scatter_weights(model, seed)
    labels = torch.arange(len(LENGTHS)) % num_labels
    return Specimen(
        model_type=model_type,
        model=model,
        batch=make_batch(model_type, model, seed),
        labels=labels,
        padded=model_type not in PADDING_SHOWS,
        padding_reason=PADDING_SHOWS.get(model_type, ""),
        backward_in_eval=model_type not in NEEDS_TRAIN_MODE,
    )
