"""Tiny models of every type that has a task, and batches for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers.models.auto import modeling_auto

from tests.zoo.build import CANNOT_BUILD, model_types, tiny_config
from tests.zoo.inputs import make_batch
from tests.zoo.media import IMAGE_RULES, SOUND_RULES, media_batch, media_config
from tests.zoo.shrink import POSITIONS
from tests.zoo.weights import scatter_weights

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

# Two texts have the same length, one is very short, and there is more padding than the longest needs.
LENGTHS, EXTRA_PADDING = (9, 12, 3, 12, 8), 4
CHOICES = 2
_IGNORED = -100
# The width that rows have to have.
ONE_WIDTH = {("masked LM", "perceiver"): POSITIONS}


@dataclass(frozen=True)
class Task:
    """A task that transformers has a class of models for.

    Attributes:
        name: As people call it.
        auto: The class that builds a model for it.
        mapping: The types that transformers registers for it, in `modeling_auto`.
    """

    name: str
    auto: str
    mapping: str


TEXT_TASKS = (
    Task("token classification", "AutoModelForTokenClassification", "TOKEN_CLASSIFICATION"),
    Task("question answering", "AutoModelForQuestionAnswering", "QUESTION_ANSWERING"),
    Task("multiple choice", "AutoModelForMultipleChoice", "MULTIPLE_CHOICE"),
    Task("masked LM", "AutoModelForMaskedLM", "MASKED_LM"),
    Task("causal LM", "AutoModelForCausalLM", "CAUSAL_LM"),
)
IMAGES = Task("image classification", "AutoModelForImageClassification", "IMAGE_CLASSIFICATION")
SOUNDS = Task("audio classification", "AutoModelForAudioClassification", "AUDIO_CLASSIFICATION")
# Of images, what is not built.
NOT_BUILT = {
    "dinat": "its attention needs natten, which has no release for the versions that are tested",
    "pp_lcnet": "its forward gives out no loss",
    "shieldgemma2": "its forward gives out no loss",
    "timm_wrapper": "it needs timm",
}
TASKS = {task.name: task for task in (*TEXT_TASKS, IMAGES, SOUNDS)}


def types_of(task: Task) -> tuple[str, ...]:
    """The types that are built for a task: those of the zoo; for images and sounds, all that transformers registers."""
    mapping = _mapping(task)
    if task is IMAGES:
        return tuple(name for name in mapping if name in IMAGE_RULES)
    if task is SOUNDS:
        return tuple(name for name in mapping if name in SOUND_RULES)
    return tuple(name for name in model_types() if name in mapping and name not in CANNOT_BUILD)


def build_for(task: Task, model_type: str, seed: int = 0) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Build a tiny model of a type for a task, and a batch of five rows with labels; the same seed, the same values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = getattr(transformers, task.auto).from_config(_config(task, model_type))
    scatter_weights(model, seed)
    return model, _batch(task, model_type, model, seed)


def _mapping(task: Task) -> dict[str, Any]:
    mapping: dict[str, Any] = getattr(modeling_auto, f"MODEL_FOR_{task.mapping}_MAPPING_NAMES")
    return mapping


def _config(task: Task, model_type: str) -> PreTrainedConfig:
    if task in {IMAGES, SOUNDS}:
        config = media_config(model_type)
        found = _mapping(task)[model_type]
        config.architectures = [found if isinstance(found, str) else found[0]]
        return config
    config = tiny_config(model_type, num_labels=2 if task.mapping == "QUESTION_ANSWERING" else 3)
    if task.mapping == "CAUSAL_LM" and hasattr(config, "is_decoder"):
        config.is_decoder = True
    return config


def _batch(task: Task, model_type: str, model: PreTrainedModel, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = len(LENGTHS)
    classes = torch.arange(rows) % 3
    if task in {IMAGES, SOUNDS}:
        return media_batch(model_type, model.config, rows, generator) | {"labels": classes}
    if task.mapping == "MULTIPLE_CHOICE":
        batch = make_batch(model_type, model, seed, LENGTHS * CHOICES, EXTRA_PADDING)
        batch["input_ids"] = _with_separators(model_type, model, batch["input_ids"])
        nested = {name: value.reshape(rows, CHOICES, *value.shape[1:]) for name, value in batch.items()}
        return nested | {"labels": torch.arange(rows) % CHOICES}
    width = ONE_WIDTH.get((task.name, model_type), max(LENGTHS) + EXTRA_PADDING)
    batch = make_batch(model_type, model, seed, LENGTHS, width - max(LENGTHS))
    if task.mapping == "QUESTION_ANSWERING":
        batch["input_ids"] = _with_separators(model_type, model, batch["input_ids"])
        return batch | {
            "start_positions": torch.tensor([1, 0, 2, 7, 3]),
            "end_positions": torch.tensor([4, 3, 2, 9, 5]),
        }
    ids = batch["input_ids"]
    real = torch.arange(ids.shape[1]) < torch.tensor(LENGTHS)[:, None]
    labels = torch.arange(ids.numel()).reshape(ids.shape) % 3
    if task.mapping == "CAUSAL_LM":
        labels = ids
    elif task.mapping == "MASKED_LM":
        real &= torch.rand(ids.shape, generator=generator) < 0.5
        real[:, 1] = True
        labels = ids
        batch["input_ids"] = ids.masked_fill(real, 4)
    return batch | {"labels": labels.masked_fill(~real, _IGNORED)}


def _with_separators(model_type: str, model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Longformer looks for three of them in each text; the last token is one."""
    if model_type != "longformer":
        return ids
    ids = ids.clone()
    ids[:, :2] = model.config.sep_token_id
    return ids
