"""What a self-check finds out besides which paths are exact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from frostline.engine.selfcheck.admission import admit
from tests.engine.stubs import VOCAB, WIDTH, Classifier, call_of, padded

if TYPE_CHECKING:
    from torch import Tensor

    from frostline.engine.selfcheck.result import SelfCheck

BATCH = padded((7, 4, 5))
MASKED = frozenset({"input_ids", "attention_mask"})


class Model(Classifier):
    """Two frozen layers; tests change what it does beneath and above them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        for part in (self.get_submodule("body.embeddings"), *self.layers[:2]):
            part.requires_grad_(requires_grad=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **more: Any) -> Any:
        low = self.beneath(self.embedded(input_ids), **more)
        middle = self.layers[1](self.layers[0](low, attention_mask), attention_mask)
        high = self.layers[2](middle, attention_mask)
        logits = self.classifier(self.above(self.pooled(high, attention_mask)))
        return self.answer(logits, middle, high, **more)

    def beneath(self, hidden: Tensor, **more: Any) -> Tensor:
        """Embeddings as the first layer takes them."""
        return hidden

    def above(self, pooled: Tensor) -> Tensor:
        """What the head takes."""
        return pooled

    def answer(self, logits: Tensor, middle: Tensor, high: Tensor, **more: Any) -> Any:
        """What is given out."""
        return {"logits": logits}


def _admit(model: nn.Module, *, training: bool = False, **more: Tensor) -> SelfCheck:
    model.train(training)
    return admit(model, model.forward, call_of(BATCH | more))


def test_a_model_without_anything_of_note() -> None:
    check = _admit(Model())
    assert check.boundary == "layer 2"
    assert not check.changes
    assert not check.draws
    assert check.per_token == frozenset()
    assert check.paddings == {"input_ids": 0, "attention_mask": 0}
    assert check.dtype == torch.float32
    assert check.paths.aligned == MASKED
    assert not check.paths.unread
    assert not check.paths.by_mode
    assert not check.paths.drops


def test_state_that_is_kept() -> None:
    class Keeping(Model):
        count: Tensor

        def above(self, pooled: Tensor) -> Tensor:
            self.count += 1
            return pooled + self.count

    model = Keeping()
    check = _admit(model)
    assert check.changes
    assert check.boundary == "layer 2"  # it has no part in what is stored
    assert model.count.item() == 0


def test_state_beneath_the_boundary_cannot_be_replayed() -> None:
    class Keeping(Model):
        count: Tensor

        def beneath(self, hidden: Tensor, **more: Any) -> Tensor:
            self.count += 1
            return hidden + self.count

    check = _admit(Keeping())
    assert check.changes
    assert check.boundary is None


@pytest.mark.parametrize("training", [True, False])
def test_random_numbers(training: bool) -> None:
    class Drawing(Model):
        def above(self, pooled: Tensor) -> Tensor:
            return pooled + torch.randn_like(pooled) if self.training else pooled

    check = _admit(Drawing(), training=training)
    assert check.draws == training
    assert check.boundary == "layer 2"


def test_known_dropout_is_no_randomness() -> None:
    class Dropping(Model):
        def above(self, pooled: Tensor) -> Tensor:
            return nn.functional.dropout(pooled, 0.5, self.training)

    assert not _admit(Dropping(), training=True).draws


def test_dropout_beneath_the_boundary_is_left_out_and_said() -> None:
    class Dropping(Model):
        def beneath(self, hidden: Tensor, **more: Any) -> Tensor:
            return nn.functional.dropout(hidden, 0.5, self.training)

    check = _admit(Dropping(), training=True)
    assert check.paths.drops
    (replay,) = (own for own in check.checks if own.path == "replay")
    assert "dropout beneath it, outside of frozen modules, is left out" in replay.how
    assert not _admit(Dropping()).paths.drops


def test_what_is_another_thing_in_train_mode() -> None:
    class ByMode(Model):
        def beneath(self, hidden: Tensor, **more: Any) -> Tensor:
            return hidden * (2 if self.training else 1)

    assert _admit(ByMode(), training=True).paths.by_mode


def test_inputs_that_what_is_frozen_never_reads() -> None:
    class Told(Model):
        def __init__(self) -> None:
            super().__init__()
            self.body.kinds = nn.Embedding(VOCAB, WIDTH).requires_grad_(requires_grad=False)

        def beneath(self, hidden: Tensor, **more: Any) -> Tensor:
            added: Tensor = self.get_submodule("body.kinds")(more["kind"])
            return hidden + added[:, None]

        def answer(self, logits: Tensor, middle: Tensor, high: Tensor, **more: Any) -> Any:
            return {"loss": nn.functional.cross_entropy(logits, more["labels"]), "logits": logits}

    check = _admit(Told(), kind=torch.tensor([1, 2, 3]), labels=torch.tensor([0, 1, 0]))
    assert check.boundary == "layer 2"
    assert check.paths.unread == {"labels"}


def test_outputs_with_a_value_per_token() -> None:
    class Generous(Model):
        def answer(self, logits: Tensor, middle: Tensor, high: Tensor, **more: Any) -> Any:
            return {"logits": logits, "both": [high, high * 2], "first": high[:, 0]}

    check = _admit(Generous())
    assert check.per_token == {"both[0]", "both[1]"}
    assert check.paths.packing == "modules"


def test_outputs_of_frozen_layers_are_stored() -> None:
    class Generous(Model):
        def answer(self, logits: Tensor, middle: Tensor, high: Tensor, **more: Any) -> Any:
            return {"logits": logits, "middle": middle}

    check = _admit(Generous())
    assert check.boundary == "layer 2"
    assert check.paths.replay is not None
    assert {leaf.path for stream in check.paths.replay.streams for leaf in stream.leaves} == {"body.layers.2", ""}


def test_all_that_is_given_out_counts() -> None:
    """A term on the mean of all positions, padding included, keeps layers from running without it."""

    class Greedy(Model):
        def answer(self, logits: Tensor, middle: Tensor, high: Tensor, **more: Any) -> Any:
            return {"logits": logits, "loss": high.mean(1).square().sum()}

    check = _admit(Greedy())
    assert check.paths.packing is None
    assert not check.paths.trim
    (packed,) = (own for own in check.checks if own.path == "padding-free")
    assert packed.how == "its results differ from the plain path's"


@pytest.mark.parametrize("part", ["head", "adapter"])
def test_zeros_hide_nothing(part: str) -> None:
    """Behind weights of zero all results look alike, until they train."""

    class Zeros(Model):
        def __init__(self) -> None:
            super().__init__()
            self.adapter = nn.Linear(WIDTH, WIDTH)
            for layer in (self.classifier,) if part == "head" else (self.adapter,):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

        def answer(self, logits: Tensor, middle: Tensor, high: Tensor, **more: Any) -> Any:
            greedy = high.mean(1)  # reads padding
            more_logits = self.classifier(greedy if part == "head" else self.adapter(greedy))
            return {"logits": logits + more_logits}

    model = Zeros()
    check = _admit(model)
    assert check.paths.packing is None
    assert not check.paths.trim
    layer = model.classifier if part == "head" else model.adapter
    assert not layer.weight.any()
