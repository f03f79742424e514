"""The texts: movie reviews where ``shared/data/mr`` stands beside the clone, else the demo's own corpus."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

from frostline.demo.corpus import build_corpus

_MR = Path(__file__).parents[2] / "shared" / "data" / "mr"
_SEED = 42


@dataclass(frozen=True)
class Split:
    """Texts and the number of each one's label."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, rows: int) -> Split:
        """The first rows."""
        return Split(self.texts[:rows], self.labels[:rows])

    def one_of_each(self) -> Split:
        """The first row of each label."""
        found = {label: text for text, label in zip(reversed(self.texts), reversed(self.labels), strict=True)}
        return Split(tuple(found.values()), tuple(found))

    def joined(self, words: int) -> Split:
        """Texts of the same label joined, in order, until each has so many words; what is left over is dropped."""
        open_texts: dict[int, list[str]] = {}
        texts, labels = [], []
        for text, label in zip(self.texts, self.labels, strict=True):
            parts = open_texts.setdefault(label, [])
            parts += text.split()
            if len(parts) >= words:
                texts.append(" ".join(parts))
                labels.append(label)
                parts.clear()
        return Split(tuple(texts), tuple(labels))


@dataclass(frozen=True)
class Data:
    """Two splits of one source.

    Attributes:
        source: What the texts are, in words.
        classes: The number of labels.
        train: What is learned from, in mixed order.
        test: What accuracy is measured on.
    """

    source: str
    classes: int
    train: Split
    test: Split

    def joined(self, words: int) -> Data:
        """Both splits with longer texts; a word is a token or more, so they fill as many tokens as words."""
        return Data(f"{self.source}, joined", self.classes, self.train.joined(words), self.test.joined(words))


def load_data(folder: Path = _MR) -> Data:
    """The movie reviews of a folder if they are there, else the demo's corpus."""
    if (folder / "train.csv").is_file():
        source, sides = "MR movie reviews", [_read(folder / f"{name}.csv") for name in ("train", "test")]
    else:
        corpus = build_corpus()
        source = f"the demo's texts (Python {corpus.python})"
        sides = [[(row.text, row.label) for row in side] for side in (corpus.train, corpus.test)]
        random.Random(_SEED).shuffle(sides[0])  # noqa: S311 - an order, not a secret
    names = sorted({label for _, label in sides[0]})
    train, test = (
        Split(tuple(text for text, _ in side), tuple(names.index(label) for _, label in side)) for side in sides
    )
    return Data(source, len(names), train, test)


def _read(file: Path) -> list[tuple[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return [(row["text"], row["label"]) for row in csv.DictReader(lines)]
