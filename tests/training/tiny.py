"""Tiny models with real tokenizers, and small tables: what the tests of checkpoints, training and cli work on."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

GOOD = ("a good film", "ein schöner Film aus Köln", "这部电影真的很好看", "really good music", "sehr gut gemacht")
BAD = ("a bad film", "ein übler Film, schade", "这部电影不好看", "really bad music", "sehr schlecht gemacht")
LINES = (*GOOD, *BAD, "the film was long and the music was loud", "我非常喜欢音乐", "Straße Größe Ärger")
_SIGNS = ("good", "bad")
CLOSED_PORT = "http://127.0.0.1:9"  # the discard port, where nothing listens

Row = dict[str, Any]


def wordpiece() -> PreTrainedTokenizerBase:
    """A WordPiece tokenizer with BERT's frame of special tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - no password
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=160, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))],
    )
    return _fast(tokenizer, {f"{token[1:-1].lower()}_token": token for token in special})


def byte_pairs() -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer as decoders have it: an end-of-text token, and no padding token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(LINES, trainer)
    return _fast(tokenizer, dict.fromkeys(("bos_token", "eos_token"), "<|endoftext|>"))


def _fast(tokenizer: Any, special: Mapping[str, str]) -> PreTrainedTokenizerBase:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)  # type: ignore[no-untyped-call]


def bert_config(**changes: Any) -> PreTrainedConfig:
    """Two layers, 16 wide, with dropout on, as released models have it."""
    from transformers import BertConfig

    values: dict[str, Any] = {
        "vocab_size": 160,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
    }
    return BertConfig(**values | changes)


def gpt2_config(**changes: Any) -> PreTrainedConfig:
    """Two layers, 16 wide, without a padding token."""
    from transformers import GPT2Config

    values: dict[str, Any] = {"vocab_size": 300, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2}
    return GPT2Config(**values | {"bos_token_id": 0, "eos_token_id": 0} | changes)


def save_base(folder: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase | None = None) -> Path:
    """Save a base model without a head, as a pretrained one comes, and its tokenizer."""
    from transformers import AutoModel

    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def save_bert(folder: Path, **changes: Any) -> Path:
    """Save a tiny BERT without a head."""
    return save_base(folder, bert_config(**changes), wordpiece())


def copy_of(folder: Path, target: Path) -> Path:
    """Copy a model's folder, for tests that damage it."""
    return Path(shutil.copytree(folder, target))


def rows(count: int = 24) -> list[Row]:
    """Texts that are good or bad in turn, in three languages."""
    pairs = [(GOOD, "good"), (BAD, "bad")]
    made = []
    for index in range(count):
        texts, label = pairs[index % 2]
        made.append({"text": f"{texts[index // 2 % len(texts)]} {'film ' * (index % 3)}".strip(), "label": label})
    return made


def easy_rows(count: int = 40) -> list[Row]:
    """Texts that a tiny model with wide initial weights tells apart within an epoch."""
    return [{"text": f"{word} " * (3 + i % 3) + "film", "label": word} for i in range(count // 2) for word in _SIGNS]


def write_csv(file: Path, table: Iterable[Mapping[str, Any]], delimiter: str = ",") -> Path:
    """Write rows as CSV, or with another delimiter."""
    listed = list(table)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(listed[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(listed)
    return file


def write_jsonl(file: Path, table: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows as one object per line."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in table]
    file.write_text("".join(lines), encoding="utf-8")
    return file


def write_parquet(file: Path, table: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([dict(row) for row in table]), file)
    return file


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors that a folder holds; norms by the names that models have, whatever the version that saved them."""
    from safetensors.torch import load_file

    stored = load_file(folder / "model.safetensors")
    return {re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name)): stored[name] for name in stored}


def same_weights(one: Path, other: Path) -> bool:
    """Whether two folders hold the same tensors, bit by bit."""
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
