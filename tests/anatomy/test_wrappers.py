"""Models inside wrappers for distributed training and compilation, and with quantised weights."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from transformers import AutoModelForSequenceClassification, BertModel

import frostline as fl
from frostline.anatomy.origin import origin_of
from frostline.anatomy.wrappers import unwrap
from frostline.checkpoints.quiet_loading import quiet
from frostline.errors import PlanError
from tests.anatomy.test_modelmap import assert_complete, unit, units
from tests.models import Plain, batch, names_of, tiny, tiny_config, trainable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_UNITS = units("embeddings", "layers 2", "pooler", "head")


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A group of one process, found through a file."""
    file = tmp_path_factory.mktemp("group") / "store"
    distributed.init_process_group("gloo", init_method=file.as_uri(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def _distributed(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model)


def _compiled(model: nn.Module) -> nn.Module:
    return cast("nn.Module", torch.compile(model, backend="eager"))  # nothing is compiled before the first call


WRAPPERS: dict[str, tuple[Callable[[nn.Module], nn.Module], str, tuple[str, ...]]] = {
    "DataParallel": (DataParallel, "module.", ("DataParallel",)),
    "DistributedDataParallel": (_distributed, "module.", ("DistributedDataParallel",)),
    "torch.compile": (_compiled, "_orig_mod.", ("OptimizedModule",)),
    "torch.compile in DistributedDataParallel": (
        lambda model: _distributed(_compiled(model)),
        "module._orig_mod.",
        ("DistributedDataParallel", "OptimizedModule"),
    ),
}


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("wrapper", WRAPPERS)
class TestWrappers:
    def test_they_are_looked_through_and_named(self, wrapper: str) -> None:
        wrap, prefix, classes = WRAPPERS[wrapper]
        model = wrap(tiny("bert"))
        anatomy = assert_complete(model)
        assert unwrap(model).prefix == anatomy.prefix == prefix
        assert unwrap(model).wrappers == classes
        assert anatomy.model_class == "BertForSequenceClassification"
        assert [found.name for found in anatomy.units] == _UNITS
        assert set(unit(anatomy, "layer 1").parameter_names) == names_of(model, f"{prefix}bert.encoder.layer.1.")
        assert set(unit(anatomy, "head").parameter_names) == names_of(model, f"{prefix}classifier.")
        assert anatomy.notes == (f"Looked through {', '.join(classes)} to BertForSequenceClassification.",)
        assert anatomy.notes[0] in str(fl.inspect(model))

    def test_names_work_without_the_wrapper_s_part(self, wrapper: str) -> None:
        wrap, prefix, _ = WRAPPERS[wrapper]
        model = wrap(tiny("bert"))
        inside = names_of(model, f"{prefix}bert.encoder.layer.1.")
        for selector in (
            "bert.encoder.layer.1",
            f"{prefix}bert.encoder.layer.1",
            "bert.encoder.layer.1.*",
            "layers[1]",
        ):
            assert set(fl.select(model, selector).names) == inside

    def test_freezing_reaches_the_model_and_restoring_too(self, wrapper: str) -> None:
        wrap, _, _ = WRAPPERS[wrapper]
        core = tiny("bert")
        model = wrap(core)
        with fl.freeze(model, "backbone"):
            model.train()
            assert trainable(core) == names_of(core, "classifier.")
            assert not core.get_submodule("bert.encoder").training
            assert core.get_submodule("classifier").training
        assert trainable(core) == names_of(core, "")
        assert all(module.training for module in core.modules())

    def test_what_the_model_inside_saves_has_the_plan(self, wrapper: str, tmp_path: Path) -> None:
        wrap, _, _ = WRAPPERS[wrapper]
        core = tiny("bert")
        model: Any = wrap(core)
        frozen = fl.freeze(model, "embeddings, layers[:1]")
        core.save_pretrained(tmp_path / "frozen")
        with quiet():
            other = AutoModelForSequenceClassification.from_pretrained(tmp_path / "frozen")
        fl.freeze(other)
        assert trainable(other) == trainable(core)
        if hasattr(model, "save_pretrained"):  # torch.compile hands it on
            model.save_pretrained(tmp_path / "handed on")
            assert (tmp_path / "handed on" / "plan.json").exists()
        frozen.restore()
        core.save_pretrained(tmp_path / "restored")
        assert not (tmp_path / "restored" / "plan.json").exists()

    def test_the_origin_is_that_of_the_model_inside(self, wrapper: str, tmp_path: Path) -> None:
        wrap, prefix, _ = WRAPPERS[wrapper]
        BertModel(tiny_config("bert")).save_pretrained(tmp_path)
        with quiet():
            core = cast("nn.Module", AutoModelForSequenceClassification.from_pretrained(tmp_path))
        origin = origin_of(wrap(core))
        assert origin.source == str(tmp_path)
        assert origin.new == {f"{prefix}classifier.weight", f"{prefix}classifier.bias"}
        assert origin.unknown == frozenset()

    def test_one_of_plain_torch(self, wrapper: str) -> None:
        wrap, prefix, _ = WRAPPERS[wrapper]
        model = wrap(Plain())
        anatomy = assert_complete(model)
        assert [found.name for found in anatomy.units] == units("embeddings", "layers 3", "norm", "head")
        assert set(fl.select(model, "layers[:2]").names) == names_of(model, f"{prefix}blocks.0.", f"{prefix}blocks.1.")


@pytest.mark.usefixtures("group")
def test_a_step_in_a_group_moves_what_is_not_frozen() -> None:
    core = tiny("bert")
    before = fl.fingerprint(core)
    fl.freeze(core, "backbone")
    model = DistributedDataParallel(core)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model(input_ids=batch(), labels=torch.tensor([0, 1, 1, 0])).loss.backward()
    optimizer.step()
    proof = fl.verify(before, core)
    assert proof.ok
    assert {tensor.name for tensor in proof.tensors if tensor.moved} == names_of(core, "classifier.")


def test_a_wrapped_model_with_adapters(group: None) -> None:
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        # PEFT still asks transformers by an older name of the attribute.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        adapted = peft.get_peft_model(tiny("bert"), peft.LoraConfig(r=2, task_type="SEQ_CLS"))
    model = DistributedDataParallel(adapted)
    anatomy = assert_complete(model)
    assert anatomy.prefix == "module.base_model.model."
    assert [found.name for found in anatomy.units] == _UNITS
    assert anatomy.notes[0] == (
        "Looked through DistributedDataParallel, PeftModelForSequenceClassification to BertForSequenceClassification."
    )
    fl.train_only(model, "adapters")
    assert trainable(adapted) == set(fl.select(adapted, "adapters").names)


class TestQuantised:
    """As bitsandbytes does it: the weights of linear layers are whole numbers without a gradient."""

    def quantised(self) -> nn.Module:
        model = tiny("bert")
        for module in model.get_submodule("bert.encoder").modules():
            if isinstance(module, nn.Linear):
                whole = (module.weight.detach() * 100).to(torch.int8)
                module.weight = nn.Parameter(whole, requires_grad=False)
        return model

    def test_it_is_said(self) -> None:
        anatomy = assert_complete(self.quantised())
        assert [found.name for found in anatomy.units] == _UNITS
        assert anatomy.notes == ("12 parameters are integers (quantised weights), which no optimizer can train.",)
        assert anatomy.notes[0] in str(fl.inspect(self.quantised()))

    def test_memory_is_counted_in_their_size(self) -> None:
        rows = {row.name: row for row in fl.inspect(self.quantised()).rows}
        whole, usual = rows["layers 0-1"].bytes, 2_224 * 4
        matrices = 4 * 16 * 16 + 2 * 16 * 32
        assert whole == usual - 3 * matrices
        assert rows["layers 0-1"].trainable == "partly"

    def test_freezing_works(self) -> None:
        model = self.quantised()
        before = fl.fingerprint(model)
        frozen = fl.freeze(model, "backbone")
        assert trainable(model) == names_of(model, "classifier.")
        fl.verify(before, model, frozen.plan).raise_for_drift()

    def test_training_them_is_refused(self) -> None:
        with pytest.raises(PlanError, match="values are whole numbers"):
            fl.train_only(self.quantised(), "layers")


def test_what_only_looks_like_a_wrapper() -> None:
    model: Any = nn.Module()
    model.module = Plain()
    model.extra = nn.Linear(2, 2)
    assert unwrap(model).wrappers == ()
    assert_complete(model)
