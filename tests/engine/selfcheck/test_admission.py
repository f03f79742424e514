from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import frostline as fl
from frostline.engine.runner import Runner
from frostline.engine.selfcheck.admission import admit
from tests.engine.stubs import WIDTH, Block, Classifier, call_of, padded
from tests.models import tiny
from tests.zoo.build import build

if TYPE_CHECKING:
    from torch import Tensor

    from frostline.engine.selfcheck.result import SelfCheck

BATCH = padded((7, 4, 5))
FROZEN = "embeddings, layers[:2]"


def _admit(
    model: nn.Module,
    frozen: str | None = FROZEN,
    batch: dict[str, Tensor] = BATCH,
    *,
    training: bool = False,
    **options: Any,
) -> SelfCheck:
    model.train(training)
    if frozen is None:
        return admit(model, model.forward, call_of(batch), **options)
    with fl.freeze(model, frozen):
        return admit(model, model.forward, call_of(batch), **options)


def _refused(check: SelfCheck, path: str) -> str:
    (found,) = (own for own in check.checks if own.path == path)
    assert not found.admitted, str(check)
    return found.how


def _gradient_of(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


class RandomBlock(Block):
    """Draws random numbers in eval mode as well."""

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return super().forward(hidden + 0.1 * torch.randn_like(hidden), mask)


class PaddingBlock(Block):
    """Takes padding for text."""

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return super().forward(hidden, torch.ones_like(mask))


class NeighbourBlock(Block):
    """Takes the other rows of the batch in."""

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return super().forward(hidden + hidden.mean(dim=0, keepdim=True), mask)


class FragileBlock(Block):
    """Takes a root, which has no slope at exactly zero: zeros are what stored padding is."""

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        size = (hidden @ self.dense.weight).square().sum(-1, keepdim=True).sqrt()
        return super().forward(hidden + 0 * size, mask)


class TestLargeTables:
    def _model(self) -> Classifier:
        model = Classifier()
        model.body.embeddings = nn.Embedding(300_000, WIDTH)  # 9.6 MB
        return model

    def test_one_that_trains_has_its_gradient_in_memory_that_is_kept(self) -> None:
        model = self._model()
        check = _admit(model, frozen=None)
        (found,) = (own for own in check.checks if own.path == "embedding gradients")
        assert found.admitted
        assert found.gradients is not None
        runner, table = Runner(model, model.forward), model.get_parameter("body.embeddings.weight")
        places = []
        for _ in range(2):
            table.grad = None
            runner.run(call_of(BATCH), check.paths).logits.sum().backward()
            places.append(_gradient_of(table).data_ptr())
        assert places[0] == places[1]

    def test_one_that_is_frozen_has_none(self) -> None:
        check = _admit(self._model())
        assert "embedding gradients" not in [own.path for own in check.checks]
        assert not check.paths.tables


class TestWhatIsAdmitted:
    def test_a_model_that_minds_its_own_rows(self) -> None:
        check = _admit(Classifier())
        assert check.boundary == "layer 2"
        assert check.paths.packing == "modules"
        assert check.paths.replay is not None
        assert not check.paths.whole
        admitted = {own.path: own.admitted for own in check.checks}
        assert admitted["padding-free"]
        assert admitted["replay"]
        assert not admitted["one position"]
        assert all(own.outputs is not None and own.outputs <= 1e-5 for own in check.checks if own.admitted)
        assert all(own.gradients is not None and own.gradients <= 1e-4 for own in check.checks if own.admitted)
        assert 0 < check.seconds < 60

    def test_the_boundary_that_was_asked_for(self) -> None:
        check = _admit(Classifier(), boundary="layer 1")
        assert check.boundary == "layer 1"

    @pytest.mark.parametrize("lengths", [(10, 6, 3), (7, 4, 5)])  # packed for the trial without spare slots, and with
    def test_no_zeros_stand_behind_packed_tokens(self, lengths: tuple[int, ...]) -> None:
        check = _admit(Classifier(FragileBlock), batch=padded(lengths))
        assert check.paths.packing == "modules"

    def test_padding_may_not_be_spared(self) -> None:
        check = _admit(Classifier(), padding_free=False)
        assert check.paths.packing is None
        assert _refused(check, "padding-free") == "switched off"
        assert check.boundary == "layer 2"

    def test_the_report_is_readable_and_plain(self) -> None:
        check = _admit(Classifier())
        lines = str(check).splitlines()
        assert [line.split(":")[0] for line in lines] == [own.path for own in check.checks]
        assert lines[-1] == "one position: no, the head reads more than one position"
        assert "largest difference of outputs" in lines[0]
        told = check.to_dict()
        assert told["boundary"] == "layer 2"
        assert [own["admitted"] for own in told["checks"]] == [own.admitted for own in check.checks]

    @pytest.mark.parametrize(("kind", "position"), [("bert", "first token"), ("distilbert", "first token")])
    def test_one_position(self, kind: str, position: str) -> None:
        check = _admit(tiny(kind), None)
        assert check.paths.single == position


class TestWhatIsNot:
    def test_a_forward_that_is_random(self) -> None:
        check = _admit(Classifier(RandomBlock))
        assert check.paths.replay is None
        assert check.paths.packing is None
        assert check.boundary is None
        assert "differ" in _refused(check, "padding-free")
        assert _refused(check, "replay")

    def test_a_frozen_layer_that_reads_the_padding(self) -> None:
        check = _admit(Classifier(PaddingBlock))
        assert check.paths.packing is None
        assert not check.paths.trim
        assert "differ" in _refused(check, "padding-free")
        assert check.paths.replay is None or check.paths.whole

    def test_a_layer_that_reads_other_rows(self) -> None:
        check = _admit(Classifier(NeighbourBlock))
        assert check.paths.replay is None
        assert check.paths.packing is None
        assert "differ" in _refused(check, "replay")

    @pytest.mark.parametrize("lengths", [(5,), (5, 5, 5), (3, 3), (2, 2), (1, 1)])
    def test_rows_of_one_length_do_not_hide_it(self, lengths: tuple[int, ...]) -> None:
        assert _admit(Classifier(NeighbourBlock), batch=padded(lengths)).paths.replay is None
        assert _admit(Classifier(PaddingBlock), batch=padded(lengths)).paths.packing is None

    def test_nothing_frozen(self) -> None:
        assert "no frozen layer" in _refused(_admit(Classifier(), None), "replay")

    def test_no_tensors(self) -> None:
        class Bare(Classifier):
            def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
                return super().forward(input_ids, attention_mask).logits.tolist()

        assert _refused(_admit(Bare()), "all") == "its forward gives out no tensors"

    def test_gradients_that_are_not_a_number(self) -> None:
        check = _admit(Classifier(FragileBlock), padding_free=False)
        assert check.paths.replay is not None
        assert check.paths.whole  # with its own padding, which is not zero, there is no such root

    def test_code_that_fails_without_padding(self) -> None:
        class Strict(Block):
            def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
                if hidden.shape[:2] == (1, 16):  # all tokens of the trial, end to end
                    raise ValueError("more positions than there can be")
                return super().forward(hidden, mask)

        check = _admit(Classifier(Strict))
        assert "ValueError" in _refused(check, "padding-free")
        assert check.boundary == "layer 2"

    def test_a_forward_that_takes_one_width_only(self) -> None:
        class Strict(Classifier):
            def embedded(self, input_ids: Tensor) -> Tensor:
                if input_ids.shape[1] != 7:
                    raise ValueError("another width")
                return super().embedded(input_ids)

        check = _admit(Strict())
        assert "takes no rows of another width" in _refused(check, "padding-free")
        assert not check.paths.trim
        assert check.paths.packing is None
        assert check.paths.replay is None or check.paths.whole

    def test_code_that_fails_when_activations_are_stored_in_the_other_mode(self) -> None:
        class Strict(Classifier):
            def embedded(self, input_ids: Tensor) -> Tensor:
                if not self.training:
                    raise ValueError("no evaluation")
                return super().embedded(input_ids)

        check = _admit(Strict(), training=True)
        assert "ValueError: no evaluation" in _refused(check, "replay")
        assert check.boundary is None
        assert check.paths.packing == "modules"

    def test_a_model_that_fails_is_told(self) -> None:
        class Broken(Classifier):
            def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
                raise KeyError("broken")

        with pytest.raises(KeyError, match="broken"):
            Broken()(**BATCH)
        assert "KeyError" in _refused(_admit(Broken()), "all")


class TestLeftAlone:
    def _state(self, model: nn.Module) -> Any:
        return copy.deepcopy(
            (
                dict(model.named_parameters()),
                dict(model.named_buffers()),
                {path: module.training for path, module in model.named_modules()},
                {name: parameter.grad for name, parameter in model.named_parameters()},
                {name: parameter.requires_grad for name, parameter in model.named_parameters()},
                {path: sorted(vars(module)) for path, module in model.named_modules()},
            )
        )

    @pytest.mark.parametrize("kind", ["bert", "gpt2", "bart", "deberta-v2"])
    def test_everything_is_as_before(self, kind: str) -> None:
        model = tiny(kind)
        for number, parameter in enumerate(model.parameters()):
            parameter.requires_grad_(number > 4)
            parameter.grad = torch.full_like(parameter, 0.5) if number % 2 and number > 4 else None
        list(model.modules())[3].training = False
        batch = padded((9, 6, 4))
        batch["input_ids"][torch.arange(3), torch.tensor([8, 5, 3])] = 2
        before, random = self._state(model), torch.random.get_rng_state()
        versions = [tensor._version for tensor in (*model.parameters(), *model.buffers())]
        admit(model, model.forward, call_of(batch))
        after = self._state(model)
        for own, other in zip(after, before, strict=True):
            assert own.keys() == other.keys()
            for name, value in own.items():
                same = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
                assert same, name
        assert torch.equal(torch.random.get_rng_state(), random)
        assert [tensor._version for tensor in (*model.parameters(), *model.buffers())] == versions

    def test_the_batch_is_as_before(self) -> None:
        batch = {name: value.clone() for name, value in BATCH.items()}
        _admit(Classifier(), batch=batch)
        assert all(torch.equal(batch[name], BATCH[name]) for name in BATCH)

    def test_random_numbers_drawn_by_the_model_are_given_back(self) -> None:
        state = torch.random.get_rng_state()
        _admit(Classifier(RandomBlock))
        assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("kind", "position"), [("llama", "last token"), ("gpt2", "last token")])
def test_one_position_where_keys_are_turned_or_projections_are_one(kind: str, position: str) -> None:
    specimen = build(kind)
    paths = _admit(specimen.model, None, specimen.batch).paths
    assert paths.single == position
    assert not paths.folded


def test_keys_and_values_are_folded_where_they_are_plain_linear_maps() -> None:
    specimen = build("bert")
    paths = _admit(specimen.model, "embeddings, layers[:2]", specimen.batch).paths
    assert paths.single == "first token"
    assert paths.folded
