"""Proof: what became of each tensor, and of each unit."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import frostline as fl
from frostline.errors import DriftError, FrostlineError, PlanError
from frostline.evidence.proof.fingerprint import Fingerprint, frozen_names
from frostline.evidence.proof.proof import Proof, compare
from tests.models import Plain, batch, names_of, tiny


def nudge(model: nn.Module, *names: str) -> None:
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name in names:
            tensors[name].add_(1)


def verdicts(proof: Proof) -> dict[str, str]:
    return {unit.name: unit.verdict for unit in proof.units}


@pytest.fixture
def model() -> nn.Module:
    """Embeddings and the two lowest layers frozen, of three; then a norm and a head."""
    made = Plain().train()
    fl.freeze(made, "embeddings, layers[:2]")
    return made


class TestVerdicts:
    def test_training_moves_what_trains(self, model: nn.Module) -> None:
        before = fl.fingerprint(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for _ in range(3):
            model.train()
            optimizer.zero_grad()
            model(batch()).square().sum().backward()
            optimizer.step()
        proof = fl.verify(before, model)
        assert proof.ok
        assert proof.drifted == ()
        assert verdicts(proof) == {
            "embeddings": "frozen",
            "layer 0": "frozen",
            "layer 1": "frozen",
            "layer 2": "moved",
            "norm": "moved",
            "head": "moved",
        }
        proof.raise_for_drift()
        assert str(proof) == "15 frozen tensors bit-identical; 8 of 8 others moved"

    def test_nothing_moved(self, model: nn.Module) -> None:
        proof = fl.verify(fl.fingerprint(model), model)
        assert proof.ok
        assert verdicts(proof) == {
            "embeddings": "frozen",
            "layer 0": "frozen",
            "layer 1": "frozen",
            "layer 2": "unmoved",
            "norm": "unmoved",
            "head": "unmoved",
        }
        assert str(proof) == (
            "15 frozen tensors bit-identical; 0 of 8 others moved; unmoved although they may train: layer 2, norm, head"
        )

    def test_partly_moved(self, model: nn.Module) -> None:
        before = fl.fingerprint(model)
        nudge(model, "classifier.bias")
        proof = fl.verify(before, model)
        assert verdicts(proof)["head"] == "partly moved"
        (head,) = (unit for unit in proof.units if unit.name == "head")
        assert (head.frozen, head.moved, head.tensors) == (0, 1, 2)

    def test_a_frozen_parameter_moved(self, model: nn.Module) -> None:
        before = fl.fingerprint(model)
        nudge(model, "blocks.0.linear.bias", "classifier.bias", "classifier.weight")
        proof = fl.verify(before, model)
        assert not proof.ok
        assert proof.drifted == ("blocks.0.linear.bias",)
        assert verdicts(proof)["layer 0"] == "drifted"
        assert verdicts(proof)["layer 1"] == "frozen"
        assert verdicts(proof)["head"] == "moved"
        assert str(proof) == "Drift: 1 of 15 frozen tensors moved: blocks.0.linear.bias"

    @pytest.mark.parametrize(
        "plan", [None, fl.Plan(freeze="embeddings, layers[:2]"), fl.Plan(train_only="layers[2], norm, head")]
    )
    def test_a_buffer_of_a_frozen_module_moved(self, model: nn.Module, plan: fl.Plan | None) -> None:
        before = fl.fingerprint(model)
        nudge(model, "blocks.1.norm.running_mean", "blocks.2.norm.running_mean")
        proof = fl.verify(before, model, plan)
        assert proof.drifted == ("blocks.1.norm.running_mean",)
        assert verdicts(proof)["layer 1"] == "drifted"
        assert verdicts(proof)["layer 2"] == "unmoved"

    @pytest.mark.parametrize("with_plan", [True, False])
    def test_a_buffer_that_follows_may_move(self, with_plan: bool) -> None:
        model = Plain().train()
        plan = fl.Plan(freeze="backbone", frozen_mode="train")
        fl.freeze(model, plan)
        before = fl.fingerprint(model)
        model(batch())  # in training mode a forward pass moves the statistics
        proof = fl.verify(before, model, plan if with_plan else None)
        assert proof.ok
        assert sum(tensor.moved for tensor in proof.tensors) == 9
        assert verdicts(proof)["layer 0"] == "frozen"

    def test_many_that_moved_are_counted(self, model: nn.Module) -> None:
        before = fl.fingerprint(model)
        nudge(model, *names_of(model, "embed.", "blocks.0."))
        assert str(fl.verify(before, model)).startswith("Drift: 5 of 15 frozen tensors moved: embed.weight, ")
        assert str(fl.verify(before, model)).endswith(" …")

    def test_a_unit_frozen_in_part(self) -> None:
        model = Plain()
        fl.freeze(model, "head, ~bias")
        before = fl.fingerprint(model)
        nudge(model, "classifier.bias")
        assert verdicts(fl.verify(before, model))["head"] == "moved"
        nudge(model, "classifier.weight")
        assert verdicts(fl.verify(before, model))["head"] == "drifted"

    def test_nothing_frozen(self) -> None:
        model = Plain()
        before = fl.fingerprint(model)
        nudge(model, *names_of(model, ""))
        proof = fl.verify(before, model)
        assert set(verdicts(proof).values()) == {"moved"}
        assert str(proof) == "Nothing was frozen; 17 of 17 parameters moved"

    def test_a_plan_says_what_had_to_stay(self, model: nn.Module) -> None:
        before = fl.fingerprint(model)
        nudge(model, "classifier.bias")
        assert fl.verify(before, model).ok
        assert fl.verify(before, model, fl.Plan(train_only="layers")).drifted == ("classifier.bias",)
        assert fl.verify(before, model, fl.Plan(freeze="head, ~bias")).ok

    def test_a_tied_tensor(self) -> None:
        model = tiny("t5")
        fl.freeze(model, "transformer.decoder.embed_tokens")
        before = fl.fingerprint(model)
        with torch.no_grad():
            model.get_parameter("transformer.encoder.embed_tokens.weight").add_(1)
        assert fl.verify(before, model).drifted == ("transformer.shared.weight",)

    def test_a_changed_dtype_or_shape_is_a_move(self, model: nn.Module) -> None:
        before = fl.fingerprint(model)
        model.get_submodule("embed").double()
        assert fl.verify(before, model).drifted == ("embed.weight",)

    def test_a_new_tensor_is_a_move(self, model: nn.Module) -> None:
        before = fl.fingerprint(model)
        model.get_submodule("classifier").register_parameter("scale", nn.Parameter(torch.ones(())))
        (scale,) = (tensor for tensor in fl.verify(before, model).tensors if tensor.name == "classifier.scale")
        assert scale.before is None
        assert scale.moved


class TestWhatMustStay:
    def test_frozen_parameters_and_buffers_of_pinned_modules(self, model: nn.Module) -> None:
        buffers = {name for name, _ in model.named_buffers() if name.startswith(("blocks.0.", "blocks.1."))}
        assert len(buffers) == 6
        assert frozen_names(model) == names_of(model, "embed.", "blocks.0.", "blocks.1.") | buffers

    def test_frozen_by_hand(self) -> None:
        model = Plain()
        model.blocks.requires_grad_(False)
        assert frozen_names(model) == names_of(model, "blocks.")

    def test_buffers_of_a_module_frozen_in_part(self) -> None:
        model = Plain()
        fl.freeze(model, "blocks.0.norm.weight")
        assert frozen_names(model) == {"blocks.0.norm.weight"}

    def test_a_whole_model_at_the_root(self) -> None:
        model = nn.BatchNorm1d(2)
        fl.freeze(model, "all")
        assert frozen_names(model) == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
        before = fl.fingerprint(model)
        model.get_buffer("running_mean").add_(1)
        assert fl.verify(before, model, fl.Plan(freeze="all")).drifted == ("running_mean",)


class TestFlagsThatDiffer:
    """What was frozen when the fingerprint was taken has to stay; what differs by the end is told."""

    def test_thawed_and_trained(self) -> None:
        model = Plain()
        frozen = fl.freeze(model, "embeddings, layers[:2]")
        before = fl.fingerprint(model)
        frozen.restore()
        nudge(model, "embed.weight", "classifier.bias")
        proof = fl.verify(before, model)
        assert not proof.ok
        assert proof.drifted == ("embed.weight",)
        assert proof.flags == "start"
        assert frozenset(proof.thawed) == before.frozen
        assert str(proof) == "Drift: 1 of 15 frozen tensors moved: embed.weight; thawed by now: 15 of the frozen"

    def test_the_block_of_a_freeze_has_ended(self) -> None:
        model = Plain()
        with fl.freeze(model, "embeddings, layers[:2]"):
            before = fl.fingerprint(model)
            nudge(model, *names_of(model, "blocks.2.", "final_norm.", "classifier."))
        proof = fl.verify(before, model)
        assert proof.ok
        assert verdicts(proof)["layer 1"] == "frozen"
        assert str(proof) == ("15 frozen tensors bit-identical; 8 of 8 others moved; thawed by now: 15 of the frozen")

    def test_a_buffer_of_what_was_frozen_then(self) -> None:
        model = Plain()
        with fl.freeze(model, "layers[0]"):
            before = fl.fingerprint(model)
        nudge(model, "blocks.0.norm.running_mean")
        assert fl.verify(before, model).drifted == ("blocks.0.norm.running_mean",)

    def test_frozen_only_since(self) -> None:
        model = Plain()
        before = fl.fingerprint(model)
        nudge(model, *names_of(model, "final_norm.", "classifier."))
        fl.freeze(model, "embeddings, layers[:2]")
        nudge(model, "embed.weight")
        proof = fl.verify(before, model)
        assert proof.ok  # it may have moved before it was frozen
        assert len(proof.newly_frozen) == 15
        assert proof.thawed == ()
        assert str(proof) == (
            "Nothing was frozen; 5 of 17 parameters moved; unmoved although they may train: layer 2; "
            "frozen by now: 15 of the others, of which 1 moved"
        )

    def test_a_plan_stands_above_flags(self) -> None:
        model = Plain()
        before = fl.fingerprint(model)
        fl.freeze(model, "embeddings")
        nudge(model, "embed.weight")
        proof = fl.verify(before, model, fl.Plan(freeze="embeddings"))
        assert (proof.flags, proof.newly_frozen, proof.drifted) == ("plan", (), ("embed.weight",))
        assert str(proof) == "Drift: 1 of 1 frozen tensors moved: embed.weight"

    def test_what_a_plan_leaves_as_it_is(self) -> None:
        model = Plain()
        with fl.freeze(model, "layers[0]"):
            before = fl.fingerprint(model)
        fl.freeze(model, "layers[1]")
        nudge(model, "blocks.0.linear.weight", "blocks.1.linear.weight")
        assert fl.verify(before, model, fl.Plan(freeze="embeddings")).drifted == ("blocks.0.linear.weight",)
        assert fl.verify(before, model, fl.Plan(train_only="layers")).ok  # it leaves nothing open

    def test_a_fingerprint_without_flags(self, model: nn.Module) -> None:
        before = Fingerprint.from_dict({name: fl.fingerprint(model).to_dict()[name] for name in ("digests", "aliases")})
        proof = fl.verify(before, model)
        assert (proof.flags, proof.ok) == ("end", True)
        assert str(proof).startswith("15 frozen tensors bit-identical; 0 of 8 others moved; ")
        assert str(proof).endswith("; by the flags of now, as the fingerprint has none")
        nudge(model, "embed.weight")
        assert fl.verify(before, model).drifted == ("embed.weight",)

    def test_a_frozen_tensor_that_is_gone(self, model: nn.Module) -> None:
        before = fl.fingerprint(model)
        model.embed = nn.Identity()
        proof = fl.verify(before, model)
        assert proof.drifted == ("embed.weight",)
        assert str(proof) == "Drift: 1 of 15 frozen tensors moved: embed.weight (gone)"

    def test_as_values(self) -> None:
        model = Plain()
        with fl.freeze(model, "embeddings"):
            before = fl.fingerprint(model)
        fl.freeze(model, "classifier.bias")
        values = json.loads(json.dumps(fl.verify(before, model).to_dict()))
        assert [values[key] for key in ("flags", "thawed", "newly_frozen")] == [
            "start",
            ["embed.weight"],
            ["classifier.bias"],
        ]


class TestDrift:
    def test_it_is_raised_with_the_proof(self, model: nn.Module) -> None:
        before = fl.fingerprint(model)
        nudge(model, "embed.weight")
        proof = fl.verify(before, model)
        with pytest.raises(DriftError, match=r"Drift: 1 of 15 .* embed\.weight") as caught:
            proof.raise_for_drift()
        assert caught.value.proof is proof
        assert caught.value.exit_status == 1
        assert isinstance(caught.value, FrostlineError)

    def test_the_model_is_of_another_kind(self) -> None:
        before = fl.fingerprint(tiny("gpt2"))
        with pytest.raises(PlanError, match=r"another model: .*Plain\.\n"):
            fl.verify(before, Plain())

    def test_the_tensors_row_by_row(self, model: nn.Module) -> None:
        before = fl.fingerprint(model)
        nudge(model, "classifier.bias")
        after = fl.fingerprint(model)
        proof = compare(before, after, fl.ModelMap.of(model), frozen_names(model))
        rows = {tensor.name: tensor for tensor in proof.tensors}
        assert list(rows) == [
            name for unit in fl.ModelMap.of(model).units for name in (*unit.parameter_names, *unit.buffer_names)
        ]
        row = rows["classifier.bias"]
        assert (row.unit, row.frozen, row.moved) == ("head", False, True)
        assert (row.before, row.after) == (before.digests["classifier.bias"], after.digests["classifier.bias"])


class TestAsValues:
    def test_all_is_there(self, model: nn.Module) -> None:
        before = fl.fingerprint(model)
        nudge(model, "classifier.bias")
        proof = fl.verify(before, model)
        values = json.loads(json.dumps(proof.to_dict()))
        assert (values["version"], values["ok"], values["verdict"]) == (1, True, str(proof))
        assert values["units"][-1] == {"name": "head", "verdict": "partly moved", "frozen": 0, "moved": 1, "tensors": 2}
        assert values["tensors"]["embed.weight"] == {
            "unit": "embeddings",
            "frozen": True,
            "before": before.digests["embed.weight"],
            "after": before.digests["embed.weight"],
        }
        assert set(values["tensors"]) == set(before.digests)
        assert "guard" not in values
        assert replace(proof, guard={"steps": 3}).to_dict()["guard"] == {"steps": 3}

    def test_what_it_took(self, model: nn.Module) -> None:
        proof = fl.verify(fl.fingerprint(model), model)
        assert proof.cost == ""
        assert Proof((), (), seconds=1.234).cost == "1.23 s"
        assert Proof((), (), seconds=0.5, share=0.0123).cost == "0.50 s, 1.2 % of the run"
