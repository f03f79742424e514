"""Selectors against models: what is meant, which term decided, what is said where nothing is."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import frostline as fl
from frostline.base.logging import get_logger
from frostline.errors import SelectorError
from tests.models import AdapterLinear, Plain, names_of, tiny

if TYPE_CHECKING:
    from collections.abc import Callable

LAYERS = 12


@cache
def bert() -> nn.Module:
    return tiny("bert", meta=True, num_hidden_layers=LAYERS)


def layer(*numbers: int) -> set[str]:
    return names_of(bert(), *(f"bert.encoder.layer.{number}." for number in numbers))


def where(accept: Callable[[str], bool]) -> set[str]:
    return {name for name, _ in bert().named_parameters() if accept(name)}


# Each atom beside a plain way to find the same names.
REFERENCE: dict[str, Callable[[], set[str]]] = {
    "embeddings": lambda: names_of(bert(), "bert.embeddings."),
    "pooler": lambda: names_of(bert(), "bert.pooler."),
    "head": lambda: names_of(bert(), "classifier."),
    "backbone": lambda: names_of(bert(), "bert."),
    "all": lambda: names_of(bert(), ""),
    "layers": lambda: layer(*range(12)),
    "layers[:]": lambda: layer(*range(12)),
    "layers[0]": lambda: layer(0),
    "layers[-1]": lambda: layer(11),
    "layers[-12]": lambda: layer(0),
    "layers[:8]": lambda: layer(*range(8)),
    "layers[-2:]": lambda: layer(10, 11),
    "layers[8:]": lambda: layer(8, 9, 10, 11),
    "layers[::2]": lambda: layer(0, 2, 4, 6, 8, 10),
    "layers[1::3]": lambda: layer(1, 4, 7, 10),
    "layers[::-5]": lambda: layer(11, 6, 1),
    "layers[-4:-2]": lambda: layer(8, 9),
    "layers[9:99]": lambda: layer(9, 10, 11),
    "bias": lambda: where(lambda name: name.endswith(".bias")),
    "norms": lambda: where(lambda name: "LayerNorm" in name),
    "bert.encoder.layer.1": lambda: layer(1),
    "bert.encoder": lambda: layer(*range(12)),
    "classifier.weight": lambda: {"classifier.weight"},
    "*": lambda: names_of(bert(), ""),
    "bert.encoder.layer.*.attention.*": lambda: where(lambda name: ".attention." in name),
    "bert.encoder.layer.1?": lambda: layer(10, 11),
    "*.query": lambda: where(lambda name: ".query." in name),
    "*.[kq]*.weight": lambda: where(lambda name: name.endswith((".key.weight", ".query.weight"))),
    r"re:.*\.(query|key)\.bias": lambda: where(lambda name: name.endswith((".query.bias", ".key.bias"))),
    r"re:bert\.encoder\.layer\.\d{1,2}\.output\..*": lambda: where(
        lambda name: ".output." in name and ".attention." not in name
    ),
}


@pytest.mark.parametrize("atom", REFERENCE)
def test_each_atom_means_what_the_reference_finds(atom: str) -> None:
    expected = REFERENCE[atom]()
    assert expected
    assert set(fl.select(bert(), atom).names) == expected


terms = st.tuples(st.booleans(), st.sampled_from(sorted(REFERENCE)))


@given(st.lists(terms, min_size=1, max_size=7), st.sampled_from([",", ", ", " ,\t"]))
def test_later_terms_win(written: list[tuple[bool, str]], separator: str) -> None:
    written[0] = (False, written[0][1])
    selected: set[str] = set()
    deciding: dict[str, str] = {}
    for takes_away, atom in written:
        matched = REFERENCE[atom]()
        selected = selected - matched if takes_away else selected | matched
        deciding |= dict.fromkeys(matched, f"~{atom}" if takes_away else atom)

    recipe = fl.select(bert(), separator.join(f"~{atom}" if away else atom for away, atom in written))

    assert set(recipe.names) == selected
    assert {decision.name: decision.term for decision in recipe.decisions} == {
        name: deciding.get(name) for name, _ in bert().named_parameters()
    }


def test_a_layer_number_is_no_prefix_of_another() -> None:
    names = fl.select(bert(), "bert.encoder.layer.1").names
    assert len(names) == 16
    assert all(name.startswith("bert.encoder.layer.1.") for name in names)


def test_eight_layers_without_their_biases() -> None:
    recipe = fl.select(bert(), ["layers[:8]", "~bias"])
    assert recipe.expression == "layers[:8], ~bias"
    assert set(recipe.names) == {name for name in layer(*range(8)) if not name.endswith("bias")}


def test_decisions_stand_in_the_order_of_the_model_and_name_their_term() -> None:
    recipe = fl.select(bert(), "layers[:2],  ~ bias , classifier.bias")
    by_name = {decision.name: (decision.selected, decision.term) for decision in recipe.decisions}
    assert [decision.name for decision in recipe.decisions] == [name for name, _ in bert().named_parameters()]
    assert by_name["bert.encoder.layer.0.output.dense.weight"] == (True, "layers[:2]")
    assert by_name["bert.encoder.layer.0.output.dense.bias"] == (False, "~ bias")
    assert by_name["classifier.bias"] == (True, "classifier.bias")
    assert by_name["classifier.weight"] == (False, None)


def test_the_recipe_as_text_and_as_values() -> None:
    model = nn.Linear(2, 2)
    recipe = fl.select(model, "all, ~bias")
    assert str(recipe) == "'all, ~bias' selects 1 of 2 parameters\n+ weight  all\n  bias    ~bias"
    assert recipe.to_dict() == {
        "expression": "all, ~bias",
        "decisions": [
            {"name": "weight", "selected": True, "term": "all"},
            {"name": "bias", "selected": False, "term": "~bias"},
        ],
    }


def test_two_stacks() -> None:
    model = tiny("t5", meta=True)
    encoder = names_of(model, "transformer.encoder.block.")
    decoder = names_of(model, "transformer.decoder.block.")
    assert set(fl.select(model, "encoder.layers").names) == encoder
    assert set(fl.select(model, "decoder.layers[:]").names) == decoder
    assert set(fl.select(model, "decoder.layers[-1], encoder.layers[0]").names) == names_of(
        model, "transformer.decoder.block.2.", "transformer.encoder.block.0."
    )
    assert set(fl.select(model, "norm").names) == names_of(
        model, "transformer.encoder.final_layer_norm", "transformer.decoder.final_layer_norm"
    )


def test_normalisations_of_every_kind_of_class() -> None:
    assert set(fl.select(tiny("llama", meta=True), "norms").names) == {
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.1.post_attention_layernorm.weight",
        "model.norm.weight",
    }
    plain = {f"blocks.{number}.norm.{leaf}" for number in range(3) for leaf in ("weight", "bias")}
    assert set(fl.select(Plain(), "norms").names) == plain | {"final_norm.weight", "final_norm.bias"}


def test_biases_with_names_of_their_own() -> None:
    model = nn.MultiheadAttention(4, 2, add_bias_kv=True)
    assert set(fl.select(model, "bias").names) == {"in_proj_bias", "bias_k", "bias_v", "out_proj.bias"}


def test_adapters() -> None:
    model = tiny("bert")
    for number in range(2):
        path = f"bert.encoder.layer.{number}.attention.self.query"
        query = model.get_submodule(path)
        assert isinstance(query, nn.Linear)
        model.set_submodule(path, AdapterLinear(query))
    expected = {
        f"bert.encoder.layer.{number}.attention.self.query.lora_{side}.default.weight"
        for number in range(2)
        for side in "AB"
    }
    assert set(fl.select(model, "adapters").names) == expected
    assert set(fl.select(model, "layers[0], ~adapters").names) == {
        name for name in names_of(model, "bert.encoder.layer.0.") if "lora" not in name
    }


def test_no_adapters() -> None:
    with pytest.raises(SelectorError, match="'»adapters«' matches nothing"):
        fl.select(bert(), "adapters")


@pytest.mark.parametrize(
    ("expression", "marked", "hint"),
    [
        ("head, bert.encoder.layr.1", "'head, »bert.encoder.layr.1«'", "bert.encoder.layer.1"),
        ("clasifier, bias", "'»clasifier«, bias'", "classifier"),
        ("all, ~classifier.wieght", "'all, »~classifier.wieght«'", "classifier.weight"),
        ("embedings", "'»embedings«'", "embeddings"),
        ("encoder.layer.1", "'»encoder.layer.1«'", "bert.encoder.layer.1"),
        ("word_embeddings.weight", "'»word_embeddings.weight«'", "bert.embeddings.word_embeddings.weight"),
        ("layrs", "'»layrs«'", "layers"),
        ("head, layers[12]", "'head, »layers[12]«'", "0 to 11"),
        ("layers[-13]", "'»layers[-13]«'", "0 to 11"),
        ("layers[5:2]", "'»layers[5:2]«'", "0 to 11"),
        ("encoder.layers[:4]", "'»encoder.layers[:4]«'", "Write layers[:4]"),
        ("re:classifier", "'»re:classifier«'", "classifier"),
        ("roberta.*", "'»roberta.*«'", "Nearest names"),
        ("qqqqqqq", "'»qqqqqqq«'", "Its units: embeddings, layers[:], pooler, head"),
        ("norm", "'»norm«'", "norms"),
        ("bert.encoder.", "'»bert.encoder.«'", "bert.encoder"),
    ],
)
def test_a_term_that_matches_nothing(expression: str, marked: str, hint: str) -> None:
    with pytest.raises(SelectorError) as caught:
        fl.select(bert(), expression)
    message = str(caught.value)
    assert marked in message
    assert hint in message.replace(marked, "")
    assert "BertForSequenceClassification" in message
    assert len(message.splitlines()) <= 2


def test_layers_of_two_stacks_must_say_which() -> None:
    with pytest.raises(SelectorError) as caught:
        fl.select(tiny("t5", meta=True), "head, layers[:1]")
    assert "'head, »layers[:1]«'" in str(caught.value)
    assert str(caught.value).endswith("it has 2 stacks.\nSay which: encoder.layers[:1], decoder.layers[:1].")


def test_layers_of_a_model_without_any() -> None:
    with pytest.raises(SelectorError, match=r"'»layers\[0\]«'.* no stack of layers was found"):
        fl.select(nn.Linear(2, 2), "layers[0]")


def test_an_error_shows_a_text_of_many_lines_in_one() -> None:
    with pytest.raises(SelectorError) as caught:
        fl.select(bert(), "head,\nlayers[99],\nbias")
    assert "'head, »layers[99]«, bias'" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("kind", "shared", "alias"),
    [
        ("t5", "transformer.shared.weight", "transformer.decoder.embed_tokens.weight"),
        ("bart", "model.shared.weight", "model.encoder.embed_tokens.weight"),
    ],
)
class TestTiedWeights:
    def test_any_name_means_the_tensor(self, kind: str, shared: str, alias: str) -> None:
        model = tiny(kind, meta=True)
        for term in (shared, alias, alias.removesuffix(".weight"), f"re:.*{alias[-20:]}"):
            (decision,) = (d for d in fl.select(model, f"head, {term}").decisions if d.selected and d.name == shared)
            assert decision.term == term

    def test_freezing_one_name_freezes_the_tensor(self, kind: str, shared: str, alias: str) -> None:
        model = tiny(kind, meta=True)
        fl.freeze(model, alias)
        assert not model.get_parameter(alias).requires_grad
        assert not model.get_parameter(shared).requires_grad
        assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} == {shared}

    def test_taking_away_by_another_name_only(self, kind: str, shared: str, alias: str) -> None:
        recipe = fl.select(tiny(kind, meta=True), f"head, ~{alias}")
        (decision,) = (decision for decision in recipe.decisions if decision.name == shared)
        assert (decision.selected, decision.term) == (False, f"~{alias}")

    @pytest.mark.parametrize("expression", ["embeddings, ~{alias}", "all, ~{alias}", "{alias}, ~{shared}"])
    def test_terms_that_disagree_are_both_named(self, kind: str, shared: str, alias: str, expression: str) -> None:
        written = expression.format(alias=alias, shared=shared)
        with pytest.raises(SelectorError) as caught:
            fl.select(tiny(kind, meta=True), written)
        message = str(caught.value)
        first, second = written.split(", ")
        for text in (repr(written), f"'{first}'", f"'{second}'", shared, alias, "tied"):
            assert text in message
        assert len(message.splitlines()) <= 2

    def test_the_same_name_may_be_decided_twice(self, kind: str, shared: str, alias: str) -> None:
        assert shared not in fl.select(tiny(kind, meta=True), f"head, {alias}, ~{alias}").names


class TestNamesThatAreWordsOfTheLanguage:
    def test_a_module_named_layers_inside_another(self) -> None:
        model = tiny("llama", meta=True)
        assert set(fl.select(model, "model.layers").names) == names_of(model, "model.layers.")

    def test_a_module_named_layers_of_one_of_two_stacks(self) -> None:
        model = tiny("bart", meta=True)
        assert set(fl.select(model, "model.encoder.layers").names) == names_of(model, "model.encoder.layers.")

    def test_a_module_named_layers_that_is_no_stack(self) -> None:
        model = nn.Module()
        model.layers = nn.Linear(2, 2)
        model.rest = nn.Linear(2, 2)
        assert fl.select(model, "layers").names == ("layers.weight", "layers.bias")

    @pytest.mark.parametrize("word", ["head", "norm", "pooler", "adapters"])
    def test_a_module_with_the_name_of_a_unit_that_the_model_lacks(self, word: str) -> None:
        model = nn.Module()
        model.body = nn.Linear(2, 2)
        model.add_module(word, nn.Bilinear(2, 2, 2))
        names = fl.select(model, word).names
        assert names == (f"{word}.weight", f"{word}.bias")

    def test_the_unit_comes_first(self) -> None:
        model = tiny("bert", meta=True)
        model.add_module("embeddings", nn.Linear(2, 2, device="meta"))  # outside the backbone: part of the head
        assert set(fl.select(model, "embeddings").names) == names_of(model, "bert.embeddings.")


class TestOddModels:
    def test_a_module_registered_twice(self) -> None:
        model = nn.Module()
        model.first = nn.Linear(2, 2)
        model.second = model.first
        assert fl.select(model, "second").names == ("first.weight", "first.bias")
        assert fl.select(model, "*.bias").names == ("first.bias",)

    def test_a_parameter_in_two_modules(self) -> None:
        model = nn.Module()
        model.first, model.second = nn.Linear(2, 2), nn.Linear(2, 2)
        model.second.weight = model.first.weight
        assert fl.select(model, "second").names == ("first.weight", "second.bias")
        with pytest.raises(SelectorError, match=r"'first' takes first\.weight in and '~second' leaves second\.weight"):
            fl.select(model, "first, ~second")

    def test_parameters_at_the_root(self) -> None:
        model = nn.ParameterList([nn.Parameter(bert().get_parameter("classifier.bias")) for _ in range(3)])
        assert fl.select(model, "1").names == ("1",)
        assert fl.select(model, "all, ~1").names == ("0", "2")

    def test_no_parameters(self) -> None:
        with pytest.raises(SelectorError, match="'»all«' matches nothing at the mark in Sequential"):
            fl.select(nn.Sequential(nn.ReLU()), "all")

    def test_parameters_without_a_shape_yet(self) -> None:
        model = nn.Module()
        model.lazy = nn.LazyLinear(3)
        assert fl.select(model, "lazy, ~bias").names == ("lazy.weight",)


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ("layers[:20]", "layers[:20] reaches beyond BertForSequenceClassification's layers, 0 to 11: it means all 12"),
        ("all, ~layers[-20:]", "layers[-20:] reaches beyond"),
        ("layers[10:14]", "it means 2 of them."),
        ("layers[:12]", ""),
        ("layers[-12:]", ""),
        ("layers[::2]", ""),
        ("layers", ""),
    ],
)
def test_a_slice_beyond_the_stack_is_said(selector: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    logger = get_logger()
    logger.addHandler(caplog.handler)
    try:
        fl.select(bert(), selector)
    finally:
        logger.removeHandler(caplog.handler)
    assert len(caplog.messages) == bool(said)
    assert said in "".join(caplog.messages)


def test_the_stack_is_named_where_there_are_two(caplog: pytest.LogCaptureFixture) -> None:
    logger = get_logger()
    logger.addHandler(caplog.handler)
    try:
        fl.select(tiny("t5", meta=True), "decoder.layers[:9]")
    finally:
        logger.removeHandler(caplog.handler)
    (said,) = caplog.messages
    assert said.startswith("decoder.layers[:9] reaches beyond T5ForSequenceClassification's decoder layers, 0 to 2: ")
