from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from frostline.engine.runner import Runner
from frostline.errors import DataError, ModelError
from frostline.runs.features import features

if TYPE_CHECKING:
    from pathlib import Path

    from frostline.runs.features import Pooling

TEXTS = ["good good film", "这部电影不好看", "ein übler Film, schade", "bad " * 90, "film", "good music"]


def loaded(folder: Path) -> tuple[Any, Any]:
    torch.manual_seed(0)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return AutoModelForSequenceClassification.from_pretrained(folder), tokenizer


def expected(model: Any, tokenizer: Any, pooling: Pooling) -> torch.Tensor:
    found = []
    for text in TEXTS:  # one by one: no padding
        batch = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            hidden = model.base_model.eval()(**batch).last_hidden_state[0]  # (length, width)
        found.append({"mean": hidden.mean(dim=0), "first token": hidden[0], "last token": hidden[-1]}[pooling])
    return torch.stack(found)


@pytest.mark.parametrize("pooling", ["mean", "first token", "last token"])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_vectors_are_those_of_the_backbone(name: str, pooling: Pooling, request: pytest.FixtureRequest) -> None:
    model, tokenizer = loaded(request.getfixturevalue(name))
    found = features(model.train(), tokenizer, TEXTS, pooling=pooling)
    assert found.shape == (6, 16)
    assert not found.requires_grad
    assert all(module.training for module in model.modules())
    torch.testing.assert_close(found, expected(model, tokenizer, pooling), rtol=1e-5, atol=1e-5)


def test_a_backbone_alone_gives_the_same(bert: Path) -> None:
    model, tokenizer = loaded(bert)
    alone = AutoModel.from_pretrained(bert)
    assert torch.equal(features(alone, tokenizer, TEXTS), features(model, tokenizer, TEXTS))


def test_layers_run_padding_free(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    own = Runner.run

    def noting(runner: Runner, call: Any, paths: Any, values: Any = None, **options: Any) -> Any:
        output = own(runner, call, paths, values, **options)
        ran.append((paths.packing, call.rows.count))
        return output

    model, tokenizer = loaded(bert)
    monkeypatch.setattr(Runner, "run", noting)
    features(model, tokenizer, TEXTS)
    assert ran[-1] == ("attention", len(TEXTS))  # not a trial on few of them


def test_pairs(bert: Path) -> None:
    model, tokenizer = loaded(bert)
    both = features(model, tokenizer, ["good film", "bad"], ["film", "bad music"])
    assert both.shape == (2, 16)
    assert not torch.allclose(both, features(model, tokenizer, ["good film", "bad"]))


def test_bad_input(bert: Path, gpt2: Path) -> None:
    model, tokenizer = loaded(bert)
    with pytest.raises(DataError, match="There are no texts"):
        features(model, tokenizer, [])
    with pytest.raises(DataError, match=r"Text 2 is empty \('  '\)"):
        features(model, tokenizer, ["good", "  "])
    with pytest.raises(DataError, match=r"^The texts are 'good film', a str\.\nGive a list of texts"):
        features(model, tokenizer, "good film")
    with pytest.raises(DataError, match=r"^The second texts are 'bad', a str\.\nGive a list of texts"):
        features(model, tokenizer, ["a", "b", "c"], "bad")
    with pytest.raises(DataError, match=r"^Text 2 is 3, a int\.\nGive texts"):
        features(model, tokenizer, ["good", 3])  # type: ignore[list-item]
    with pytest.raises(ModelError, match=r"^The tokenizer is None, a NoneType\.\nGive the model's own"):
        features(model, None, TEXTS)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="pooling='max' is none"):
        features(model, tokenizer, TEXTS, pooling="max")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="Give a model of transformers"):
        features(nn.Linear(2, 2), tokenizer, TEXTS)
    with pytest.raises(ModelError, match="has no padding token"):
        features(AutoModel.from_pretrained(gpt2), AutoTokenizer.from_pretrained(gpt2), TEXTS)
