"""Token classification: names of people, places and things in WNUT-17, the two highest layers."""

from __future__ import annotations

from typing import Any

from benchmarks import task
from benchmarks.job import Job
from benchmarks.models import load_tokenizer, small_bert
from benchmarks.row import Row, Target
from frostline.demo.model import find_demo_model

_IGNORED = -100


def _sentences() -> list[list[tuple[str, str]]]:
    text = (task.SHARED / "wnut17" / "train.conll").read_text(encoding="utf-8")
    parts = (part.splitlines() for part in text.split("\n\n"))
    return [
        [(word, tag) for word, _, tag in (line.partition("\t") for line in lines if line)] for lines in parts if lines
    ]


def make(rows: int, tiny: bool) -> task.Task:
    """MiniLM with a head for each token."""
    from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification

    sentences, tokenizer = _sentences(), load_tokenizer()
    names = sorted({tag for sentence in sentences for _, tag in sentence})
    made: list[dict[str, Any]] = []
    for sentence in sentences[:rows]:
        encoded = tokenizer([word for word, _ in sentence], is_split_into_words=True, truncation=True, max_length=128)
        words = encoded.word_ids()
        firsts = [word is not None and word not in words[:place] for place, word in enumerate(words)]
        labels = [
            names.index(sentence[word][1]) if first and word is not None else _IGNORED
            for word, first in zip(words, firsts, strict=True)
        ]
        made.append({"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": labels})
    return task.Task(
        model=small_bert("TokenClassification", len(names))
        if tiny
        else AutoModelForTokenClassification.from_pretrained(find_demo_model(), num_labels=len(names)),
        freeze="embeddings, layers[:-2]",
        rows=made,
        collate=DataCollatorForTokenClassification(tokenizer),
        source="WNUT-17 sentences",
        tokens=sum(len(row["input_ids"]) for row in made),
    )


ROWS = (
    Row(
        name="tokens-top2",
        work="token classification, train layers 4-5 and head, 3 epochs",
        peer="transformers.Trainer, same frozen",
        job=Job(top=2, epochs=3, rows=1_000),
        task=make,
        ours=task.frostline,
        theirs=task.transformers_trainer,
        target=Target(3),
    ),
)
