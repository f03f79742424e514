"""Question answering: XQuAD, padded to one length as the task guide of transformers does, the two highest layers."""

from __future__ import annotations

import json
from typing import Any

from benchmarks import task
from benchmarks.job import Job
from benchmarks.models import load_tokenizer, small_bert
from benchmarks.row import Row, Target
from frostline.demo.model import find_demo_model

_LENGTH = 384


def make(rows: int, tiny: bool) -> task.Task:
    """MiniLM with a head for the first and the last token of an answer."""
    from transformers import AutoModelForQuestionAnswering, default_data_collator

    tokenizer = load_tokenizer()
    articles = json.loads((task.SHARED / "xquad" / "en.json").read_text(encoding="utf-8"))["data"]
    asked = [
        (answer["question"], part["context"], answer["answers"][0])
        for article in articles
        for part in article["paragraphs"]
        for answer in part["qas"]
    ]
    made: list[dict[str, Any]] = []
    for question, context, answer in asked[:rows]:
        encoded = tokenizer(question, context, truncation="only_second", max_length=_LENGTH, padding="max_length")
        begin = answer["answer_start"]
        places = [encoded.char_to_token(at, sequence_index=1) or 0 for at in (begin, begin + len(answer["text"]) - 1)]
        columns = {name: encoded[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        made.append(columns | {"start_positions": places[0], "end_positions": places[1]})
    return task.Task(
        model=small_bert("QuestionAnswering", 2)
        if tiny
        else AutoModelForQuestionAnswering.from_pretrained(find_demo_model()),
        freeze="embeddings, layers[:-2]",
        rows=made,
        collate=default_data_collator,
        source=f"XQuAD (English), padded to {_LENGTH} tokens",
        tokens=sum(sum(row["attention_mask"]) for row in made),
    )


ROWS = (
    Row(
        name="qa-top2",
        work="question answering, train layers 4-5 and head, 3 epochs",
        peer="transformers.Trainer, same frozen",
        job=Job(top=2, epochs=3, rows=128),
        task=make,
        ours=task.frostline,
        theirs=task.transformers_trainer,
        target=Target(3),
    ),
)
