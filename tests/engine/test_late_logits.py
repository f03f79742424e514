"""Logits that are computed only where a loss counts them: the same numbers, whoever reads what."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

import frostline as fl
from frostline.engine.late_logits import LateHead, LateLogits, head_of
from tests.dropin import rows
from tests.dropin.pairs import compared
from tests.training.beside import OwnLoss

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WORDS = 1200
_TINY: dict[str, Any] = {"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
_TINY |= {"intermediate_size": 24, "initializer_range": 0.2}


class Language(nn.Module):
    """No more than a head on vectors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(8, WORDS)

    def get_output_embeddings(self) -> nn.Linear:
        return self.head


def ways(read: Callable[[Tensor, Tensor], Tensor]) -> tuple[Any, Any, LateHead]:
    """Value and gradients of what is made of logits, of a late head and of the head itself; and the late one."""
    model = Language()
    head = head_of(model)
    assert head is not None
    owner = LateHead(head)
    found = []
    for forward in (owner.forward(head.forward), head.forward):
        states = torch.linspace(-1, 1, 3 * 5 * 8).reshape(3, 5, 8).sin().requires_grad_()
        labels = torch.arange(15).reshape(3, 5) * 7
        labels[:, :2] = -100
        value = read(forward(states), labels)
        gradients = torch.autograd.grad(value.sum(), [states, *head.parameters()])
        found.append([value.detach(), *gradients])
    return found[0], found[1], owner


def counted(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
    return functional.cross_entropy(logits.float().view(-1, WORDS), labels.view(-1), **options)


def shifted(logits: Tensor, labels: Tensor) -> Tensor:
    return counted(logits[..., :-1, :].contiguous().to(labels.device), labels[..., 1:].contiguous())


def of_no_row(logits: Tensor, labels: Tensor) -> Tensor:
    return counted(logits, torch.full_like(labels, -100), reduction="sum")


def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    return counted(logits, labels, label_smoothing=0.1, weight=torch.linspace(0.5, 2, WORDS))


def written(logits: Tensor, labels: Tensor) -> Tensor:
    logits[..., :3] = -5.0
    logits.div_(2)
    return counted(logits, labels)


def per_row(logits: Tensor, labels: Tensor) -> Tensor:
    return counted(logits, labels, reduction="none")


COUNTS = [counted, shifted, smoothed, of_no_row, partial(counted, reduction="sum")]
READS = [written, per_row, lambda logits, _: logits.softmax(-1), lambda logits, labels: counted(logits / 2, labels)]


@pytest.mark.parametrize(("read", "reads_all"), [*((way, False) for way in COUNTS), *((way, True) for way in READS)])
def test_whatever_is_made_of_them(read: Callable[[Tensor, Tensor], Tensor], reads_all: bool) -> None:
    own, other, head = ways(read)
    for one, another in zip(own, other, strict=True):
        torch.testing.assert_close(one, another, rtol=1e-5, atol=1e-6)
    assert head.is_read == reads_all


def test_gradients_of_gradients() -> None:
    model = Language()
    found = []
    for forward in (LateHead(model.head).forward(model.head.forward), model.head.forward):
        states = torch.linspace(-1, 1, 24).reshape(1, 3, 8).requires_grad_()
        logits = forward(states)
        (first,) = torch.autograd.grad(logits.logsumexp(-1).sum(), states, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), states)[0])
    torch.testing.assert_close(*found)


def test_they_are_those_of_the_weights_before_a_step() -> None:
    model = Language()
    logits = LateHead(model.head).forward(model.head.forward)(torch.ones(2, 3, 8))
    assert isinstance(logits, LateLogits)
    before = model.head(torch.ones(2, 3, 8)).detach()
    counted(logits, torch.tensor([[1, -100, -100]] * 2)).backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert torch.equal(logits.detach(), before)
    assert not torch.equal(model.head(torch.ones(2, 3, 8)), before)

    late = LateHead(model.head).forward(model.head.forward)(torch.ones(2, 3, 8))
    with torch.no_grad():
        model.head.weight.mul_(2)
    with pytest.raises(RuntimeError, match="are read after the head's weights"):
        late.detach()


def test_a_view_that_was_written_to_is_not_read_past() -> None:
    model = Language()
    logits = LateHead(model.head).forward(model.head.forward)(torch.ones(2, 3, 8))
    flat = logits.view(-1, WORDS)
    logits.mul_(2)
    with pytest.raises(RuntimeError, match="a view of them, were written to"):
        flat.sum()


def test_without_a_gradient_they_are_computed_at_once() -> None:
    model = Language()
    with torch.no_grad():
        assert type(LateHead(model.head).forward(model.head.forward)(torch.ones(2, 8))) is Tensor


def prompted(count: int, seed: int) -> list[rows.Row]:
    """Texts of which the first half is a prompt."""
    made = rows.encoded(rows.texts(count, seed=seed))
    return [
        row | {"labels": [-100] * (len(row["input_ids"]) // 2) + row["input_ids"][len(row["input_ids"]) // 2 :]}
        for row in made
    ]


def language(kind: str) -> Any:
    names = {"llama": ("LlamaConfig", "LlamaForCausalLM"), "gemma2": ("Gemma2Config", "Gemma2ForCausalLM")}
    names["bert"] = ("BertConfig", "BertForMaskedLM")
    config, model = names[kind]
    more: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if kind == "bert" else {}
    more |= {"head_dim": 8, "num_key_value_heads": 2} if kind == "gemma2" else {}
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(**_TINY | more))
    fl.freeze(made, "embeddings, layers[:2]")
    return made


def takes_late(trainer: fl.Trainer) -> bool:
    report = trainer.engine_report
    assert report is not None
    assert next(check for check in report.check.checks if check.path == "logits").admitted
    assert ("logits where the loss counts them" in str(report)) == report.check.paths.late_logits
    return report.check.paths.late_logits


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_language_models(tmp_path: Path, kind: str) -> None:
    assert takes_late(compared(tmp_path, partial(language, kind), given=rows.given(prompted), real=True))


def test_a_head_of_which_the_forward_reads_all(tmp_path: Path) -> None:
    """Gemma 2 caps its logits."""
    assert not takes_late(compared(tmp_path, partial(language, "gemma2"), given=rows.given(prompted), real=True))


class Reads(OwnLoss):
    """A loss that reads all logits besides."""

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        output = model(**inputs)
        real = output.logits[inputs["attention_mask"].bool()]
        return output.loss + 0.01 * real.logsumexp(-1).mean(), output


def test_a_loss_that_reads_all(tmp_path: Path) -> None:
    assert not takes_late(compared(tmp_path, partial(language, "llama"), Reads, given=rows.given(prompted), real=True))
