"""Documents packed end to end into one row: each is a row to the engine, and whoever calls the model sees one row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from transformers import DataCollatorWithFlattening

import frostline as fl
from frostline.engine.batch_inputs import NeedsPlain, layout_of
from frostline.engine.engine import Engine
from frostline.engine.settings import EngineSettings
from tests.engine.answering import Stores, engine_of

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = 1100  # so many that a head computes logits where they count
LENGTHS = (9, 4, 12, 7, 5, 11, 6, 8, 3, 10, 2, 7)
SIZES: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2},
    "gpt2": {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 1},
    "bert": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2},
}
DROPOUT = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "hidden_dropout_prob", "attention_probs_dropout_prob")


def documents() -> list[dict[str, list[int]]]:
    draw = torch.Generator().manual_seed(0)
    return [{"input_ids": torch.randint(3, WORDS, (length,), generator=draw).tolist()} for length in LENGTHS]


def frozen(kind: str = "llama", **changes: Any) -> Any:
    torch.manual_seed(0)
    values = SIZES[kind] | {"vocab_size": WORDS, "use_cache": False} | dict.fromkeys(DROPOUT, 0.0) | changes
    config = transformers.AutoConfig.for_model(kind, **values)
    auto: Any = transformers.AutoModelForMaskedLM if kind == "bert" else transformers.AutoModelForCausalLM
    model = auto.from_config(config)
    fl.freeze(model, "embeddings, layers[:2]")
    return model.train()


def packs(epochs: int = 3, *, described: bool = True) -> Iterator[dict[str, Any]]:
    """In each epoch other documents stand in one row."""
    make: Any = DataCollatorWithFlattening
    collate = make(return_flash_attn_kwargs=described, return_seq_idx=described)
    rows, order = documents(), torch.Generator().manual_seed(1)
    for _ in range(epochs):
        places = torch.randperm(len(rows), generator=order).tolist()
        for begin in range(0, len(rows), 4):
            yield collate([rows[place] for place in places[begin : begin + 4]])


def pack(*lengths: int, **changes: Any) -> dict[str, Any]:
    """One row of documents."""
    ids = torch.arange(3, 3 + sum(lengths))[None]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    return {"input_ids": ids, "position_ids": positions, "labels": ids.where(positions > 0, -100)} | changes


def trained(model: Any, engine: Engine | None, *, described: bool) -> list[Any]:
    """The losses and logits of each step, and the weights at the end."""
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-3, eps=1e-5)
    found = []
    for inputs in packs(described=described):
        if engine is not None:
            with engine.active():
                output = model(**inputs)
        else:
            output = model(**inputs)
        assert output.logits.shape == (1, inputs["input_ids"].numel(), WORDS)
        (output.loss + output.logits[..., :7].square().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        found += [output.loss.detach(), output.logits.detach()]
    return [*found, *(one.detach() for one in model.parameters())]


@pytest.mark.parametrize(("kind", "described"), [("llama", True), ("llama", False), ("gpt2", False)])
def test_steps_are_the_plain_ones_and_each_document_is_computed_once(kind: str, described: bool) -> None:
    model, stores = frozen(kind), Stores()
    engine = engine_of(model, stores)
    own = trained(model, engine, described=described)
    plain = trained(frozen(kind), None, described=described)
    for ours, theirs in zip(own, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-5)
    assert engine.checked is not None
    assert engine.checked.checks[0].path == "documents"
    assert engine.checked.boundary == "layer 2"
    assert engine.answered == 9
    assert engine.computed == stores.made[0].rows == len(LENGTHS)
    assert engine.asked >= 3 * len(LENGTHS)


def test_packs_are_evaluated_from_what_training_stored() -> None:
    model, stores = frozen(), Stores()
    engine = engine_of(model, stores)
    batches = list(packs(epochs=2))
    for inputs in batches[:3]:
        with engine.active():
            model(**inputs)
    model.train(mode=False)
    for inputs in batches[3:]:
        with torch.no_grad():
            plain = model(**inputs)
            with engine.active():
                own = model(**inputs)
        torch.testing.assert_close(own.loss, plain.loss)
        torch.testing.assert_close(own.logits, plain.logits, rtol=0, atol=1e-5)
    assert engine.answered == 6
    assert [store.rows for store in stores.made] == [len(LENGTHS)]


def test_one_document_in_two_packs_is_one_row() -> None:
    model, stores = frozen(), Stores()
    engine = engine_of(model, stores)
    first = pack(5, 4, 6)
    engine.check(first)
    assert engine.fill(first) == 3
    second = {name: torch.cat([value[:, 9:], value[:, :5]], dim=1) for name, value in first.items()}
    assert engine.fill(second) == 0
    assert engine.fill(pack(5, 4)) == 0
    assert layout_of(first).lengths.tolist() == [5, 4, 6]


def test_documents_that_see_each_other_stay_one_row() -> None:
    """BERT knows no documents: whatever stands in the row is seen by all of it."""
    model = frozen("bert")
    engine = engine_of(model)
    inputs = pack(5, 4, 6)
    check = engine.check(inputs)
    assert not check.paths.any
    assert str(check).startswith("documents: no, packed documents are no rows of their own to it")
    with engine.active():
        torch.testing.assert_close(model(**inputs).logits, model(**inputs).logits)
    assert engine.answered == 0


def test_documents_stay_one_row_where_layers_run_on_padding() -> None:
    check = Engine(frozen(), EngineSettings(padding_free=False)).check(pack(5, 4, 6))
    assert not check.paths.any
    assert str(check).startswith("documents: no, packed documents stay packed")


def test_a_lone_document_is_tried_beside_itself() -> None:
    """It tells nothing of whether documents see each other."""
    bounds = {"cu_seq_lens_q": torch.tensor([0, 8], dtype=torch.int32)}
    assert "documents: yes" in str(Engine(frozen(), EngineSettings()).check(pack(8, **bounds)))
    assert "documents: no" in str(Engine(frozen("bert"), EngineSettings()).check(pack(8, **bounds)))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a cache": (pack(5, 4, use_cache=True), "use_cache=False goes without"),
    "a label across": (pack(5, 4, labels=torch.arange(9)[None]), "the next one's first, whose label is not -100"),
    "lengths far apart": (pack(40, *[1] * 20), "more than 4 times as many tokens"),
    "other bounds": (pack(5, 4, cu_seq_lens_q=torch.tensor([0, 4, 9])), "cu_seq_lens_q tells of other documents"),
    "a value per document": (pack(5, 4, weights=torch.ones(2)), "weights has not one value per token"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_answered_plainly(case: str) -> None:
    inputs, reason = REFUSED[case]
    engine = Engine(frozen(), EngineSettings())
    with pytest.raises(NeedsPlain, match=reason):
        engine.check(inputs)


def test_positions_that_never_begin_anew_are_one_row() -> None:
    """Nor do such that begin elsewhere each time."""
    assert layout_of(pack(9)).mask.shape == (1, 9)
    jumps = pack(9, position_ids=torch.tensor([[0, 1, 2, 5, 6, 7, 3, 4, 5]]))
    assert layout_of(jumps).mask.shape == (1, 9)
