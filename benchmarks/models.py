"""The models that are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from frostline.demo.model import find_demo_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from benchmarks.case import Case
    from benchmarks.job import Job

SEED = 42


def load_tokenizer() -> PreTrainedTokenizerBase:
    """MiniLM's tokenizer, for every model."""
    from transformers import AutoTokenizer

    return cast("PreTrainedTokenizerBase", AutoTokenizer.from_pretrained(find_demo_model()))


def load_model(job: Job, case: Case) -> Any:
    """The classifier of a job, always with the same values; for a warm-up, one of four layers and 16 units."""
    from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification, set_seed

    set_seed(SEED)
    if case.tiny:
        return small_bert("SequenceClassification", case.classes)
    if job.model == "base":
        return BertForSequenceClassification(cast("Any", BertConfig)(num_labels=case.classes))
    model = AutoModelForSequenceClassification.from_pretrained(find_demo_model(), num_labels=case.classes)
    return read_in(model)


def small_bert(task: str, labels: int) -> Any:
    """A BERT of four layers and 16 units, with the head of a task: what warm-ups train."""
    import transformers

    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    return getattr(transformers, f"BertFor{task}")(cast("Any", transformers.BertConfig)(num_labels=labels, **size))


def read_in(model: Any) -> Any:
    """Touch every weight: they are mapped from the file, and would be read, and become resident, when first used."""
    for parameter in model.parameters():
        parameter.detach().sum()
    return model


def freeze_below(model: Any, top: int) -> None:
    """Freeze a BERT the way its users do by hand: embeddings and all but the highest layers."""
    layers = model.bert.encoder.layer
    for module in (model.bert.embeddings, *layers[: len(layers) - top]):
        module.requires_grad_(False)


def with_lora(model: Any, top: int, rank: int) -> Any:
    """Put LoRA on the highest layers of a BERT the way users of PEFT do: it trains, and the head."""
    from peft import LoraConfig, get_peft_model

    layers = len(model.bert.encoder.layer)
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=2 * rank,
        target_modules=["query", "value"],
        layers_to_transform=list(range(layers - top, layers)),
    )
    return get_peft_model(model, config)


def predict(model: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """The label of each text, by plain forwards over texts of like length."""
    import torch

    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    labels = [0] * len(texts)
    model.eval()
    for start in range(0, len(order), 64):
        chosen = order[start : start + 64]
        batch = tokenizer([texts[at] for at in chosen], truncation=True, padding=True, return_tensors="pt")
        with torch.no_grad():
            best = model(**batch.to(model.device)).logits.argmax(dim=-1)  # (batch,)
        for at, label in zip(chosen, best.tolist(), strict=True):
            labels[at] = label
    return labels
