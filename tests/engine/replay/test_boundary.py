from __future__ import annotations

import warnings

import peft
import pytest

import frostline as fl
from frostline.engine.replay.boundary import Route, Site, core_of, frost_line
from tests.models import tiny


def test_one_stack() -> None:
    route = Route.at(tiny("bert"), "layer 1")
    assert route.tables == ("bert.embeddings",)
    assert route.skipped == ("bert.encoder.layer.0",)
    assert [site.path for site in route.sites] == ["bert.encoder.layer.1", "bert.pooler", "classifier"]
    assert {site.side for site in route.sites} == {"input"}
    assert route.chains == (("bert.encoder.layer.1",),)
    assert route.layers == 2


def test_everything_beneath_the_head() -> None:
    route = Route.at(tiny("bert"), "head")
    assert route.skipped == ("bert.encoder.layer.0", "bert.encoder.layer.1")
    assert route.sites == (Site("classifier", "input"),)
    assert route.chains == ()


def test_nothing_beneath_the_embeddings() -> None:
    route = Route.at(tiny("bert"), "embeddings")
    assert (route.tables, route.skipped) == ((), ())
    assert route.chains == (("bert.encoder.layer.0", "bert.encoder.layer.1"),)


def test_encoder_and_decoder_are_two_chains() -> None:
    model = tiny("bart")
    whole = Route.at(model, "encoder layer 0")
    assert [len(chain) for chain in whole.chains] == [2, 3]
    assert whole.layers == 5
    route = Route.at(model, "decoder layer 1")
    assert route.skipped == (*whole.chains[0], whole.chains[1][0])
    assert route.chains == (whole.chains[1][1:],)
    assert route.sites[0].path == route.chains[0][0]


def test_layers_in_parallel_lists_are_left_by_the_last_of_their_parts() -> None:
    model = tiny("xlm")
    route = Route.at(model, "layer 1")
    parts = fl.ModelMap.of(model).stacks[0].layers
    assert len(parts[0]) > 1
    assert route.skipped == parts[0]
    assert route.sites[0] == Site(parts[0][-1], "output")
    assert [site.path for site in route.sites[1 : len(parts[1]) + 1]] == list(parts[1])
    assert route.chains == ()


def test_a_unit_that_is_not_there() -> None:
    with pytest.raises(KeyError, match="layer 9"):
        Route.at(tiny("bert"), "layer 9")


@pytest.mark.parametrize(
    ("frozen", "expected"),
    [
        ("embeddings", "layer 0"),
        ("embeddings, layers[:1]", "layer 1"),
        ("backbone", "head"),
        ("layers[0]", "embeddings"),
    ],
)
def test_the_frost_line_is_the_lowest_unit_that_trains(frozen: str, expected: str) -> None:
    model = tiny("bert")
    with fl.freeze(model, frozen):
        assert frost_line(model) == expected


def test_without_anything_that_trains_there_is_no_frost_line() -> None:
    assert frost_line(tiny("bert").requires_grad_(requires_grad=False)) is None


def test_one_bias_is_enough() -> None:
    model = tiny("bert").requires_grad_(requires_grad=False)
    model.get_parameter("bert.encoder.layer.0.output.dense.bias").requires_grad_()
    assert frost_line(model) == "layer 0"


def test_a_tied_table_that_trains_is_the_frost_line() -> None:
    model = tiny("bart").requires_grad_(requires_grad=False)
    model.get_parameter("model.shared.weight").requires_grad_()
    assert frost_line(model) == fl.ModelMap.of(model).units[0].name


def test_wrappers_are_looked_through() -> None:
    model = tiny("bert")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))
    assert core_of(wrapped) is model
    assert core_of(model) is model
