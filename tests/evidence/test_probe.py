from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BatchEncoding

import frostline as fl
from frostline.errors import ModelError
from tests.evidence.states import state
from tests.models import Plain, tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from frostline.evidence.movement import Probe, ProbeRow

IDS = torch.randint(3, 10, (4, 7), generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 1, 0])
TEXTS = {"input_ids": IDS, "labels": LABELS}
PAIR = (IDS, LABELS)

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1, foreach=False),
    "sgd foreach": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, foreach=True),
    "sgd fused": partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True),
    "adamw": partial(torch.optim.AdamW, lr=1e-3, foreach=False),
    "adamw foreach": partial(torch.optim.AdamW, lr=1e-3, amsgrad=True, foreach=True),
    "adamw fused": partial(torch.optim.AdamW, lr=1e-3, fused=True),
    "adafactor": partial(torch.optim.Adafactor, lr=1e-3),
    "tensor rate": partial(torch.optim.AdamW, lr=torch.tensor(1e-3), foreach=False),
}


class BrokenError(RuntimeError):
    """What the tests raise in the middle of a step."""


def probe_of(model: nn.Module, optimizer: Any = None, **options: Any) -> Probe:
    if isinstance(model, Plain):
        return fl.probe(model, PAIR, optimizer, loss=F.cross_entropy, **options)
    return fl.probe(model, TEXTS, optimizer, **options)


def loss_of(model: nn.Module) -> torch.Tensor:
    if isinstance(model, Plain):
        return F.cross_entropy(model(IDS), LABELS)
    return cast("torch.Tensor", model(**TEXTS).loss)


def real_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def row(found: Probe, name: str) -> ProbeRow:
    return next(row for row in found.rows if row.name == name)


def moved(found: Probe) -> set[str]:
    return {parameter.name for parameter in found.parameters if parameter.moved}


def build(kind: str) -> Any:
    return Plain() if kind == "plain" else tiny(kind)


# Everything is put back


@settings(max_examples=40)
@given(
    kind=st.sampled_from(["plain", "bert", "gpt2", "electra", "albert", "deberta-v2"]),
    name=st.sampled_from(sorted(OPTIMIZERS)),
    frozen=st.sampled_from([None, "embeddings", "backbone", "bias"]),
    mode=st.sampled_from(["eval", "train"]),
    steps=st.integers(0, 2),
    training=st.booleans(),
    grads=st.booleans(),
)
def test_everything_is_bit_identical_afterwards(
    kind: str, name: str, frozen: str | None, mode: Any, steps: int, training: bool, grads: bool
) -> None:
    model = build(kind)
    optimizer = OPTIMIZERS[name](model.parameters())
    for _ in range(steps):
        real_step(model, optimizer)
    if not grads:
        optimizer.zero_grad()
    if frozen is not None:
        fl.freeze(model, frozen, frozen_mode=mode)
    model.train(training)
    before = state(model, optimizer)
    found = probe_of(model, optimizer)
    assert state(model, optimizer) == before
    assert found.changes
    assert probe_of(model, optimizer) == found  # the random numbers are the same ones, too
    assert probe_of(model).copied_bytes > 0
    assert state(model, optimizer) == before


def test_it_says_what_a_real_step_does() -> None:
    model = build("bert")
    fl.freeze(model, "embeddings, layers[0]")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    torch.manual_seed(5)
    found = probe_of(model, optimizer)
    torch.manual_seed(5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.train()
    real_step(model, optimizer)
    for parameter in found.parameters:
        now = model.get_parameter(parameter.name).detach()
        distance = (now - before[parameter.name]).double().norm()
        assert parameter.moved == bool(distance)
        assert parameter.distance == pytest.approx(float(distance), rel=1e-6)
        size = float(before[parameter.name].double().norm())
        if size:
            assert parameter.change == pytest.approx(float(distance) / size, rel=1e-6)
        else:
            assert parameter.change == (None if parameter.moved else 0.0)


class RaisingLinear(nn.Linear):
    """Fails in its forward, after the layers beneath it have run."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        raise BrokenError


class RaisingBackward(torch.autograd.Function):
    """Fails in the backward."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        raise BrokenError


class RaisingSGD(torch.optim.SGD):
    """Fails after its step."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        raise BrokenError


@pytest.mark.parametrize("where", ["forward", "backward", "step", "loss"])
def test_everything_is_put_back_when_the_step_raises(where: str) -> None:
    model = build("plain")
    fl.freeze(model, "embeddings")
    if where == "forward":
        model.classifier = RaisingLinear(4, 2)
    if where == "backward":
        function = cast("Any", RaisingBackward)
        model.blocks[1].register_forward_hook(lambda module, given, output: function.apply(output))
    optimizer = (RaisingSGD if where == "step" else torch.optim.SGD)(model.parameters(), lr=0.1, momentum=0.9)
    model.blocks[2].linear.weight.grad = torch.ones(4, 4)
    model.eval()

    def failing(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if where == "loss":
            raise BrokenError
        return F.cross_entropy(output, target)

    before = state(model, optimizer)
    with pytest.raises(BrokenError):
        fl.probe(model, PAIR, optimizer, loss=failing)
    assert state(model, optimizer) == before


class Restless(nn.Module):
    """Changes about everything that a forward can change."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("table", torch.zeros(2))
        self.cache = torch.zeros(3)
        self.calls = 0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        random.random()  # noqa: S311
        np.random.rand()  # noqa: NPY002
        self.calls += 1
        self.cache.add_(1)
        self.count.add_(1)  # type: ignore[operator]
        self.table = torch.ones(5)
        self.register_buffer("late", torch.ones(1))
        self.linear.weight.data.clamp_(-0.1, 0.1)
        hidden.mul_(2)
        return cast("torch.Tensor", self.linear(hidden).sum())


def test_what_a_forward_changes_beside_the_parameters() -> None:
    model, inputs = Restless(), torch.ones(3, 4)
    fl.freeze(model, "linear.weight", frozen_mode="train")
    before = state(model)
    found = fl.probe(model, inputs)
    assert state(model) == before
    assert (model.calls, model.cache.tolist(), inputs.tolist()) == (0, [0.0] * 3, [[1.0] * 4] * 3)
    assert not hasattr(model, "late")
    (weight, _) = found.parameters
    assert (weight.moved, weight.cause) == (True, "the forward writes into it")
    assert {name for unit in found.rows for name in unit.buffers_moved} == {"count", "table"}


def test_a_scheduler_goes_on_as_if_nothing_had_been() -> None:
    model = build("plain")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    before = state(model, optimizer)
    probe_of(model, optimizer)
    assert state(model, optimizer) == before
    real_step(model, optimizer)
    scheduler.step()  # warns where the optimizer's step was not the first of the two
    assert scheduler.get_last_lr() == pytest.approx([0.01])


def test_two_runs_with_and_without_a_probe_are_the_same() -> None:
    losses: dict[bool, list[float]] = {}
    for probing in (False, True):
        model = build("bert")
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        torch.manual_seed(0)
        losses[probing] = []
        for _ in range(5):
            if probing:
                probe_of(model, optimizer)
            losses[probing].append(float(loss_of(model).detach()))
            real_step(model, optimizer)
    assert losses[True] == losses[False]


# Memory


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of what is cloned."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cloned = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.clone.default:
            self.cloned += out.numel() * out.element_size()
        return out


def test_what_is_frozen_is_not_copied() -> None:
    model = tiny("bert", vocab_size=5000)
    optimizer = torch.optim.AdamW(model.parameters())
    real_step(model, optimizer)  # state for everything
    optimizer.zero_grad()
    fl.train_only(model, "head")
    head = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    with Allocations() as allocated:
        found = probe_of(model, optimizer)
    expected = 3 * head + 2 * 4 + buffers  # values, two momenta, a step counter of each of two tensors
    assert found.copied_bytes == expected
    everything = sum(parameter.nbytes for parameter in model.parameters())
    assert allocated.cloned < 0.05 * everything
    assert moved(found) == {"classifier.weight", "classifier.bias"}


# Truth before flags


@pytest.mark.parametrize("options", [{"weight_decay": 0.1}, {"momentum": 0.9}])
def test_a_frozen_parameter_with_an_old_gradient_moves(options: dict[str, Any]) -> None:
    model = build("bert")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **options)
    real_step(model, optimizer)
    for parameter in model.bert.embeddings.parameters():
        parameter.requires_grad_(False)
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.zero_()  # what zero_grad(set_to_none=False) leaves
    before = state(model, optimizer)
    found = probe_of(model, optimizer)
    assert state(model, optimizer) == before
    unit = row(found, "embeddings")
    assert (unit.trainable, unit.gradient, unit.moved) == ("no", ("stale",), "yes")
    assert not found.ok
    assert "frozen by flag, but moved (the optimizer holds it, and it keeps an old gradient): " in found.verdict


class DecaysAll(torch.optim.SGD):
    """Decays what has no gradient, too."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.mul_(0.9)


class MovesItself(torch.optim.SGD):
    """Gives its parameters other memory."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data * 0.5


@pytest.mark.parametrize("kind", [DecaysAll, MovesItself])
def test_an_optimizer_that_moves_what_has_no_gradient(kind: type[torch.optim.SGD]) -> None:
    model = build("plain")
    fl.freeze(model, "embeddings")
    optimizer = kind(model.parameters(), lr=0.1)
    before = state(model, optimizer)
    found = probe_of(model, optimizer)
    assert state(model, optimizer) == before
    (surprise,) = found.surprises
    assert (surprise.name, surprise.cause) == ("embed.weight", "the optimizer moves it without a gradient")


def test_steps_below_the_resolution_of_the_weights() -> None:
    model = build("bert").to(torch.bfloat16)
    found = probe_of(model, torch.optim.SGD(model.parameters(), lr=1e-7))
    lost = {parameter.name: parameter.cause for parameter in found.surprises}
    assert lost["bert.pooler.dense.weight"] == "the change is lost to rounding in bfloat16"
    assert row(found, "pooler").gradient == ("yes",)


def test_what_the_optimizer_does_not_hold() -> None:
    model = build("bert")
    optimizer = torch.optim.SGD(model.classifier.parameters(), lr=0.1)
    optimizer.add_param_group({"params": [torch.zeros(2)]})
    found = probe_of(model, optimizer)
    assert moved(found) == {"classifier.weight", "classifier.bias"}
    assert {parameter.cause for parameter in found.surprises} == {"not in the optimizer"}
    assert row(found, "layer 1").in_optimizer == "no"
    assert row(found, "layer 1").learning_rates == ()
    assert row(found, "head").learning_rates == (0.1,)
    assert found.strangers == 1
    assert "The optimizer holds 1 tensors that are not the model's: build it anew." in str(found)


def test_a_rate_of_zero_and_no_gradient() -> None:
    model = build("bert")
    model.classifier.extra = nn.Linear(2, 2)
    groups = [
        {"params": model.bert.parameters(), "lr": 0.0},
        {"params": model.classifier.parameters()},
    ]
    found = probe_of(model, torch.optim.SGD(groups, lr=0.1))
    causes = {parameter.name: parameter.cause for parameter in found.surprises}
    assert causes.pop("classifier.extra.weight") == "no gradient"
    assert causes.pop("classifier.extra.bias") == "no gradient"
    assert set(causes.values()) == {"learning rate 0"}
    assert row(found, "head").moved == "partly"
    assert row(found, "head").gradient == ("yes", "none")


def test_everything_frozen() -> None:
    model = build("bert")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    found = probe_of(model)
    assert found.verdict == "A step changes none of the 41 parameter tensors."
    assert found.optimizer == "none, since nothing trains"
    assert found.ok
    held = probe_of(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert moved(held) == set()


@pytest.mark.parametrize(("mode", "count"), [("eval", 0), ("train", 9)])
def test_pinned_modules_stay_in_eval_mode(mode: Any, count: int) -> None:
    model = build("plain")
    fl.freeze(model, "backbone", frozen_mode=mode)
    seen: list[bool] = []
    model.blocks[0].register_forward_hook(lambda module, *_: seen.append(module.training))
    found = probe_of(model.eval())
    assert seen == [mode == "train"]
    assert sum(len(unit.buffers_moved) for unit in found.rows) == count


def test_tied_weights_count_once() -> None:
    model = build("bert")
    model.classifier.weight = nn.Parameter(model.bert.pooler.dense.weight[:2].detach().clone())
    model.classifier.twin = nn.Linear(16, 16)
    model.classifier.twin.weight = model.bert.pooler.dense.weight
    before = state(model)
    found = probe_of(model)
    assert state(model) == before
    names = [parameter.name for parameter in found.parameters]
    assert names.count("bert.pooler.dense.weight") == 1
    assert "classifier.twin.weight" not in names


# Kinds of models


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks for it
def test_adapters() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    model = peft.get_peft_model(tiny("bert"), config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = state(model, optimizer)
    found = probe_of(model, optimizer)
    assert state(model, optimizer) == before
    assert found.model_class == "BertForSequenceClassification"
    # While B is 0, A has a gradient of 0, and decay alone moves it.
    words = {parameter.name: parameter.gradient for parameter in found.parameters if parameter.trainable}
    assert {word for name, word in words.items() if "lora_A" in name} == {"zero"}
    assert {word for name, word in words.items() if "lora_B" in name} == {"yes"}
    assert moved(found) == set(words)
    bare = probe_of(model)  # without decay, A stays in the first step
    assert {parameter.cause for parameter in bare.surprises} == {"its gradient is 0"}
    assert {parameter.name for parameter in bare.surprises} == {name for name in words if "lora_A" in name}


@pytest.fixture
def one_process(tmp_path: Any) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("views", [False, True])
def test_distributed(views: bool) -> None:
    model = nn.parallel.DistributedDataParallel(tiny("bert"), gradient_as_bucket_view=views)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(2):
        real_step(model, optimizer)
        before = state(model, optimizer)
        found = probe_of(model, optimizer)
        assert state(model, optimizer) == before
    assert found.ok
    assert found.parameters[0].name == "module.bert.embeddings.word_embeddings.weight"
    real_step(model, optimizer)


def test_compiled() -> None:
    model = cast("nn.Module", torch.compile(tiny("bert"), backend="eager"))
    before = state(model)
    found = probe_of(model)
    assert state(model) == before
    assert found.ok


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant: bool) -> None:
    model = build("bert")
    plain = probe_of(model)
    cast("Any", model).activation_checkpointing_enable({"use_reentrant": reentrant})
    before = state(model)
    found = probe_of(model)
    assert state(model) == before
    assert found.ok
    assert found.loss == plain.loss


def test_mixed_precision() -> None:
    model = build("bert")
    seen: list[torch.dtype] = []
    model.bert.pooler.dense.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    before = state(model)
    found = probe_of(model, autocast=torch.bfloat16)
    assert seen == [torch.bfloat16]
    assert state(model) == before
    assert found.ok


@pytest.mark.parametrize("overflows", [False, True])
def test_a_gradient_scaler(overflows: bool) -> None:
    model = build("bert")
    optimizer = torch.optim.AdamW(model.parameters())
    factor = 1e10 if overflows else 1.0
    scaler = torch.amp.GradScaler("cpu", init_scale=1e30 if overflows else 16.0, growth_interval=1)
    for _ in range(2):  # before and after its first use
        before, held = state(model, optimizer), scaler.state_dict()
        found = fl.probe(model, TEXTS, optimizer, scaler=scaler, loss=lambda output, _: output.loss * factor)
        assert state(model, optimizer) == before
        assert scaler.state_dict() == held
        assert found.skipped == overflows
        assert bool(moved(found)) != overflows
        scaler.scale(torch.ones(1))
    if overflows:
        assert found.verdict.startswith("The gradient scaler skipped the step")
        assert not found.ok


def test_what_accelerate_prepared() -> None:
    from accelerate import Accelerator  # type: ignore[import-untyped]
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    base = tiny("bert")
    model, optimizer = accelerator.prepare(base, torch.optim.AdamW(base.parameters(), lr=1e-3))
    before = state(model, optimizer.optimizer)
    found = probe_of(model, optimizer)
    assert state(model, optimizer.optimizer) == before
    assert found.optimizer == "AdamW, learning rate 0.001"
    AcceleratorState._reset_state(reset_partial_state=True)


# Batches and results


@pytest.mark.parametrize(
    "batch", [TEXTS, BatchEncoding(cast("Any", TEXTS)), TEXTS | {"attention_mask": torch.ones_like(IDS)}]
)
def test_batches(batch: Any) -> None:
    assert fl.probe(tiny("bert"), batch).ok


def test_a_loss_of_one_s_own() -> None:
    ids = {"input_ids": IDS}
    found = fl.probe(tiny("bert"), ids, loss=lambda output, batch: output.logits[batch["input_ids"][:, 0] > 0].sum())
    assert found.ok
    assert fl.probe(Plain(), IDS, loss=torch.sum).loss is not None


@pytest.mark.parametrize("batch", [{"input_ids": IDS}, PAIR[:1]])
def test_no_loss_is_said(batch: Any) -> None:
    model = build("bert") if isinstance(batch, dict) else Plain()
    before = state(model)
    with pytest.raises(ModelError, match=r"gave no loss\.\nPut labels into the batch, or give loss=…"):
        fl.probe(model, batch)
    assert state(model) == before


def test_a_model_without_values_is_refused() -> None:
    with pytest.raises(ModelError, match="is on the meta device"):
        fl.probe(tiny("bert", meta=True), TEXTS)


def test_the_result_as_text_and_values() -> None:
    model = build("bert")
    fl.freeze(model, "embeddings, layers[0]")
    found = probe_of(model)
    lines = str(found).splitlines()
    assert lines[0] == "A step changes 20 of 41 parameter tensors: layers[1], pooler, head."
    assert lines[2].split("  ")[0] == "unit"
    assert [line.split("  ")[0] for line in lines[3:8]] == ["head", "pooler", "layer 1", "layer 0", "embeddings"]
    assert lines[-1].startswith("Optimizer: AdamW, learning rate 5e-05 (built for the probe); loss 0.6")
    values = found.to_dict()
    assert values["changes"] == "layers[1], pooler, head"
    assert [entry["moved"] for entry in values["rows"]] == ["no", "no", "yes", "yes", "yes"]
    assert values["parameters"]["classifier.weight"]["gradient"] == "yes"
    assert values["parameters"]["classifier.weight"]["cause"] is None
