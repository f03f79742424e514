from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

import frostline as fl
from frostline.evidence.checks.run import REGISTRY
from frostline.evidence.explain.explain import MESSAGES_PAGE
from frostline.evidence.explain.known_messages import MESSAGES
from tests.evidence.checks.cases import loaded
from tests.evidence.provoke import PROVOKED, said
from tests.models import tiny

ROOT = Path(__file__).parents[3]

# What takes hardware or a quantised model to provoke: the wording is looked up in the library's own source.
LOOKED_UP = {
    "You can't train a model that has been loaded in 8-bit or 4-bit precision": ("accelerate", "accelerator.py"),
}


@pytest.mark.parametrize("phrase", PROVOKED)
def test_messages_are_worded_as_the_libraries_do(phrase: str) -> None:
    heard = said(PROVOKED[phrase])
    explained = [explanation.phrase for text in heard if (explanation := fl.explain(text)) is not None]
    assert phrase in explained, heard


def test_all_messages_are_provoked_or_looked_up() -> None:
    phrases = [message.phrase for message in MESSAGES]
    assert len(set(phrases)) == len(phrases) >= 20
    assert set(phrases) == set(PROVOKED) | set(LOOKED_UP)


@pytest.mark.parametrize("phrase", LOOKED_UP)
def test_messages_that_cannot_be_provoked_stand_in_the_source(phrase: str) -> None:
    package, file = LOOKED_UP[phrase]
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert phrase in (Path(spec.origin).parent / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.phrase)
def test_each_message(message: Any) -> None:
    for phrase in (message.phrase, *message.also):
        explanation = fl.explain(f"RuntimeError: {phrase} and more")
        assert explanation is not None
        assert explanation.phrase == message.phrase
    assert message.slug in {"", *REGISTRY}
    assert message.cause.endswith(".")
    assert message.mend.endswith(".")


_HEAD = """# What this message means

The messages that people meet because something is frozen, as torch 2.13, transformers 5.23, accelerate 1.15 and
PEFT 0.21 word them.

```python
error = "ValueError: optimizer got an empty parameter list"  # or the exception itself
print(fl.explain(error))
print(fl.explain(error, model))  # and what it is about in this model
```

```
frostline check --explain "optimizer got an empty parameter list"
```"""


def page() -> str:
    parts = [_HEAD]
    for message in MESSAGES:
        parts += [f"## {message.phrase}", f"*{message.source}.* {message.cause}", message.mend]
        if message.slug:
            parts.append(f"The check for it: [{message.slug}](checks.md#{message.slug}).")
    return "\n\n".join(parts) + "\n"


def test_the_page_and_the_table_are_in_step(request: pytest.FixtureRequest) -> None:
    file = ROOT / MESSAGES_PAGE
    if request.config.getoption("--update-golden"):
        file.write_text(page(), encoding="utf-8")
    assert file.read_text(encoding="utf-8") == page()


def test_an_error_explained() -> None:
    with pytest.raises(RuntimeError) as caught:
        PROVOKED["does not require grad and does not have a grad_fn"]()
    explanation = fl.explain(caught.value)
    assert explanation is not None
    assert str(explanation).splitlines()[0] == "torch: does not require grad and does not have a grad_fn"
    assert str(explanation).splitlines()[-1] == "  See docs/checks.md#everything-frozen"
    assert json.loads(json.dumps(explanation.to_dict()))["slug"] == "everything-frozen"


def test_line_breaks_colours_and_quotes_do_not_matter() -> None:
    explanation = fl.explain(
        "\x1b[31mMust flatten\n tensors with  uniform requires_grad\x1b[0m when use_orig_params=False"
    )
    assert explanation is not None
    assert explanation.slug == "fsdp-mixed"


def test_the_wording_of_earlier_versions() -> None:
    text = "Some weights of BertForSequenceClassification were not initialized … and are newly initialized: ['x']"
    explanation = fl.explain(text)
    assert explanation is not None
    assert explanation.slug == "new-but-frozen"


def test_with_a_model_the_check_names_what_is_concerned() -> None:
    model = tiny("bert").half()  # type: ignore[no-untyped-call]
    fl.freeze(model, "backbone")
    explanation = fl.explain("ValueError: Attempting to unscale FP16 gradients.", model)
    assert explanation is not None
    assert explanation.units == ("head",)
    assert explanation.names == ("classifier.weight", "classifier.bias")
    assert "In this model: head." in str(explanation)


def test_with_a_model_the_names_in_the_message_are_found(tmp_path: Path) -> None:
    (report,) = (text for text in said(lambda: loaded(tmp_path)) if "MISSING" in text)
    explanation = fl.explain(report, tiny("bert"))
    assert explanation is not None
    assert explanation.units == ("head",)
    assert set(explanation.names) == {"classifier.weight", "classifier.bias"}


def test_a_model_that_has_not_the_fault() -> None:
    explanation = fl.explain("optimizer got an empty parameter list", tiny("bert"))
    assert explanation is not None
    assert explanation.units == ()


@pytest.mark.parametrize("text", ["", "CUDA out of memory", "KeyError: 'label'"])
def test_a_message_that_is_not_known(text: str) -> None:
    assert fl.explain(text) is None
