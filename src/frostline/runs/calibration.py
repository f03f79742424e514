"""A short measurement of how fast this machine trains a model: a few of its layers, built from the configuration alone.

Three layers of the model's own width are run on the fast paths of the engine, as the steps of a training run are: with
the head alone training, with one, two and three layers, and with the embeddings too. What these differ by is what a
layer costs, in its place. The same layers run plainly and padded, as ``transformers.Trainer`` runs them.
"""

from __future__ import annotations

import copy
import tempfile
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from frostline.anatomy.modelmap import ModelMap
from frostline.base.random_state import RngState, seed_all
from frostline.checkpoints.quiet_loading import quiet
from frostline.engine.cost.machines import Speeds, from_figures
from frostline.engine.cost.units import unit_costs
from frostline.engine.engine import Engine
from frostline.engine.settings import EngineSettings
from frostline.evidence.proof.fingerprint import fingerprint
from frostline.freezing.freeze import Freeze
from frostline.plan.plan import Plan
from frostline.store.folder import default_folder
from frostline.store.place import StorePlace
from frostline.store.room import free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from transformers import PretrainedConfig, PreTrainedModel

    from frostline.engine.cost.costs import Measured
    from frostline.engine.cost.units import UnitCost

LAYERS = 3
_MOST_TOKENS = 1024  # of a batch that is measured; of longer texts fewer rows are run
_FILLING_TOKENS = 2048
_ROUNDS, _LONGEST = 5, 1.0  # of one step, of which the best counts; seconds
_SHARE = 0.25  # of free memory that the layers may take, with gradients and optimizer
_MOST_FLOPS = 6e10  # of the longest step that is measured, unless a single row has more
_TRAINER_STEPS = 12
_PLANS = ("pooler, head", "layers[-1:]", "layers[-2:]", "layers[-3:]")


@dataclass(frozen=True, slots=True)
class _Step:
    """What one plan took on the thin model.

    Attributes:
        seconds: Forward and backward, in one step.
        check: Of the self-check.
        measured: What the run's own measurement found; None where nothing is frozen beneath.
    """

    seconds: float
    check: float
    measured: Measured | None


class NotMeasurable(Exception):  # noqa: N818 - it is no error of the user's, but a reason
    """Why layers of a model are not measured, in words."""


def measured_speeds(
    model_class: type[PreTrainedModel],
    config: PretrainedConfig,
    lengths: Sequence[int],
    *,
    typical: Sequence[int],
    dtype: str = "fp32",
    settings: EngineSettings | None = None,
) -> Speeds:
    """Measure how fast this machine's processor trains layers of a model.

    Random states stay as they are, and nothing stays on disk. It takes seconds.

    Args:
        model_class: The model's class.
        config: Its configuration.
        lengths: Tokens of the rows of the data, of which the filling pass takes some of about one length.
        typical: Tokens of the rows of one batch as a step has it.
        dtype: ``"fp32"``, or ``"bf16"`` for mixed precision.
        settings: What the engine may do.

    Raises:
        NotMeasurable: If the layers do not fit, or are no chain of layers of one kind.
    """
    began = time.perf_counter()
    rng = RngState()
    half = dtype != "fp32"
    try:
        seed_all(0)
        thin, flops = _thin(model_class, config)
        vocabulary = int(cast("Any", thin).get_input_embeddings().num_embeddings)
        rows = list(typical)
        while len(rows) > 1 and (sum(rows) > _MOST_TOKENS or 3 * flops * sum(rows) > _MOST_FLOPS):
            rows = rows[::2]
        step = _batch(rows, vocabulary)
        middle = sorted(lengths)[len(lengths) // 2]
        filling = _batch([middle] * max(1, min(_FILLING_TOKENS // middle, 64)), vocabulary)
        settings = settings or EngineSettings()
        run = _Runs(thin, step, filling, settings, half=half)
        return run.speeds(began)
    finally:
        rng.restore()


class _Runs:
    """Steps of a thin model under one plan after another.

    Args:
        thin: The model.
        step: A batch as a step has it.
        filling: A batch as the filling pass has it.
        settings: What the engine may do.
        half: Whether to compute in mixed precision.
    """

    def __init__(
        self,
        thin: nn.Module,
        step: Mapping[str, torch.Tensor],
        filling: Mapping[str, torch.Tensor],
        settings: EngineSettings,
        *,
        half: bool,
    ) -> None:
        self._thin = thin
        self._step = step
        self._filling = filling
        self._settings = settings
        self._half = half

    def speeds(self, began: float) -> Speeds:
        """Run all of them, and tell what each part costs."""
        tokens, rows = int(self._step["attention_mask"].sum()), len(self._step["attention_mask"])
        positions = self._step["attention_mask"].numel()
        head, last, two, three = (self._fast(self._plan(plan)) for plan in _PLANS)
        everything = self._fast(None)
        parameter = self._optimizer()
        forward, whole = self._plain(self._plan(_PLANS[0])), self._plain(None)
        hashing = _best(lambda: fingerprint(self._thin))
        if head.measured is None or last.measured is None or two.measured is None:
            raise NotMeasurable("nothing of it can be replayed")
        fill_layer = max(last.measured.fill - two.measured.fill, last.measured.fill / LAYERS)
        sizes = sum(parameter.nbytes for parameter in self._thin.parameters())
        check = max(one.check for one in (head, last, two))
        return Speeds(
            how=f"{LAYERS} layers of its width, measured on this machine with {torch.get_num_threads()} threads",
            source="measured",
            overhead=trainer_overhead(half=self._half),
            head=head.seconds / rows,
            last=max(0.0, last.seconds - head.seconds) / tokens,
            lowest=max(0.0, two.seconds - last.seconds) / tokens,
            layer=max(two.seconds - last.seconds, three.seconds - two.seconds) / tokens,
            embeddings=max(0.0, everything.seconds - three.seconds) / tokens,
            fill_layer=fill_layer,
            fill_embeddings=max(0.0, two.measured.fill - fill_layer),
            anew=two.measured.anew / two.measured.fill,
            parameter=parameter,
            check=check / LAYERS,
            check_fixed=two.measured.seconds,
            byte=hashing / sizes,
            padded_forward=forward / LAYERS / positions,
            padded_layer=whole / LAYERS / positions,
            head_token_bytes=head.measured.token_bytes,
            head_row_bytes=head.measured.row_bytes,
            token_bytes=two.measured.token_bytes,
            memory=two.measured.memory,
            disk=two.measured.disk,
            products=self._keeps_products,
            seconds=time.perf_counter() - began,
        )

    @property
    def _keeps_products(self) -> bool:
        from frostline.engine.kernels.onednn_linear import is_faster

        return self._half or is_faster(torch.device("cpu"), torch.float32)

    def _plan(self, trains: str) -> Plan:
        units = {unit.kind for unit in ModelMap.of(self._thin).units}
        wanted = [term for term in (*trains.split(", "), "pooler", "head", "norm") if _there(term, units)]
        return Plan(train_only=", ".join(dict.fromkeys(wanted)))

    def _autocast(self) -> Any:
        return torch.autocast("cpu", dtype=torch.bfloat16) if self._half else nullcontext()

    def _fast(self, plan: Plan | None) -> _Step:
        """Run steps on the fast paths, as the Trainer does."""
        with ExitStack() as stack:
            if plan is not None:
                stack.callback(Freeze(self._thin, plan).restore)
            self._thin.train()
            engine = Engine(self._thin, self._settings)
            stack.callback(engine.close)
            stack.enter_context(engine.active())
            stack.enter_context(self._autocast())
            check = engine.check(self._step)
            measured = None
            if check.paths.replay is not None:
                measured = engine.measure(self._filling, self._step, default_folder())
                engine.use(StorePlace(None, free_memory() // 4, self._settings.torch_dtype))
            return _Step(_best(self._forward_and_backward), check.seconds, measured)

    def _plain(self, plan: Plan | None) -> float:
        """Run steps as transformers.Trainer does: padded, frozen layers with dropout."""
        trains = None if plan is None else set(plan.flags(self._thin, ModelMap.of(self._thin)).items())
        flags = {name: parameter.requires_grad for name, parameter in self._thin.named_parameters()}
        try:
            for name, parameter in self._thin.named_parameters():
                parameter.requires_grad_(trains is None or (name, True) in trains)
            self._thin.train()
            with self._autocast():
                return _best(self._forward_and_backward)
        finally:
            for name, parameter in self._thin.named_parameters():
                parameter.requires_grad_(flags[name])

    def _forward_and_backward(self) -> None:
        self._thin.zero_grad(set_to_none=True)
        self._thin(**self._step).loss.backward()

    def _optimizer(self) -> float:
        """Seconds per parameter of clipping, and of a step of AdamW, on a copy of all that trains."""
        copies = [nn.Parameter(parameter.detach().clone()) for parameter in self._thin.parameters()]
        for one in copies:
            one.grad = torch.full_like(one, 1e-3)
        optimizer = torch.optim.AdamW(copies, lr=1e-6, fused=True)

        def step() -> None:
            nn.utils.clip_grad_norm_(copies, 1.0)
            optimizer.step()

        return _best(step) / sum(one.numel() for one in copies)


def _there(term: str, kinds: set[Any]) -> bool:
    return term.startswith("layers") or term in kinds


def _best(run: Callable[[], Any]) -> float:
    """The least that a run takes; once is not counted, as it fills caches."""
    run()
    found: list[float] = []
    began = time.perf_counter()
    while len(found) < _ROUNDS and (not found or time.perf_counter() - began < _LONGEST):
        started = time.perf_counter()
        run()
        found.append(time.perf_counter() - started)
    return min(found)


def _thin(model_class: type[PreTrainedModel], config: PretrainedConfig) -> tuple[nn.Module, float]:
    """A model of few layers, with random weights; and the FLOPs of a forward per token.

    Raises:
        NotMeasurable: If it would take too much memory, or its layers are no single chain.
    """
    own = copy.deepcopy(config)
    text: Any = own.get_text_config()
    count = getattr(text, "num_hidden_layers", None)
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == count and count > LAYERS:  # kinds of layers, one by one
            setattr(text, name, value[:LAYERS])
    text.num_hidden_layers = LAYERS
    try:
        with quiet(), torch.device("meta"):
            shapes = model_class(own)
    except Exception as error:  # whatever a model's constructor makes of another number of layers
        raise NotMeasurable(f"it cannot be built with {LAYERS} layers") from error
    stacks = ModelMap.of(shapes).stacks
    if len(stacks) != 1 or len(stacks[0]) != LAYERS:
        raise NotMeasurable("its layers are no single chain")
    size = sum(parameter.nbytes for parameter in shapes.parameters())
    if 4 * size > _SHARE * free_memory():
        raise NotMeasurable("its layers take too much memory here")
    with quiet():
        thin = model_class(copy.deepcopy(own))
    return thin, sum(unit.flops for unit in unit_costs(thin) if not unit.per_row)


def _batch(lengths: Sequence[int], vocabulary: int) -> dict[str, torch.Tensor]:
    """Rows of random tokens of these lengths, padded on the right, (rows, length); labels, (rows,)."""
    longest = max(lengths)
    mask = torch.arange(longest) < torch.tensor(list(lengths))[:, None]
    ids = torch.randint(min(10, vocabulary - 1), vocabulary, mask.shape)
    return {
        "input_ids": ids * mask,
        "attention_mask": mask.long(),
        "labels": torch.zeros(len(lengths), dtype=torch.long),
    }


@cache
def trainer_overhead(*, half: bool = False) -> float:
    """Seconds that a step of a Trainer takes besides computing: those of a model that computes next to nothing."""
    from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, TrainerCallback

    from frostline.training.arguments import TrainingArguments
    from frostline.training.trainer import Trainer

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    rng = RngState()
    config = BertConfig(**cast("Any", _NEXT_TO_NOTHING))
    rows = [{**_batch([8 + row % 5], 20), "labels": 0} for row in range(4 * _TRAINER_STEPS)]
    examples = [{name: value[0].tolist() if name != "labels" else 0 for name, value in row.items()} for row in rows]
    try:
        with tempfile.TemporaryDirectory() as folder, quiet():
            arguments = TrainingArguments(
                folder,
                per_device_train_batch_size=4,
                num_train_epochs=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                bf16=half,
                store="memory",
            )
            trainer = Trainer(
                BertForSequenceClassification(config),
                arguments,
                train_dataset=cast("Any", examples),
                data_collator=_collated,
                callbacks=[Clock()],
                train_only="head",
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
    finally:
        rng.restore()
    return float(np.median(np.diff(ends[2:])))


_NEXT_TO_NOTHING = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
}


def _collated(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    lengths = [sum(row["attention_mask"]) for row in rows]
    batch = {name: torch.zeros(len(rows), max(lengths), dtype=torch.long) for name in ("input_ids", "attention_mask")}
    for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        for name, values in batch.items():
            values[place, :length] = torch.tensor(row[name][:length])
    return batch | {"labels": torch.tensor([row["labels"] for row in rows])}


def product_speeds(units: Sequence[UnitCost], *, tokens: int, length: float, dtype: torch.dtype) -> Speeds:
    """Reckon speeds from matrix products of a model's width on this machine, where its layers cannot be run here.

    Args:
        units: Of the model.
        tokens: Of a batch.
        length: Mean tokens of a row, as a token meets them.
        dtype: Of the products.
    """
    began = time.perf_counter()
    width = max(1, min(_WIDEST, max((unit.width for unit in units), default=1)))
    count = max(1, min(tokens, _MOST_TOKENS))
    values, weight = torch.randn(count, width).to(dtype), torch.randn(width, width).to(dtype)
    with torch.no_grad():
        rate = 2.0 * count * width * width / _best(lambda: nn.functional.linear(values, weight))
        block = torch.zeros(_BLOCK // 4)
        bandwidth = 2.0 * _BLOCK / _best(block.clone)
    reached = rate * _OF_PRODUCTS
    how = (
        f"matrix products {width} wide, measured on this machine at {rate / 1e9:,.0f} GFLOP/s, of which training is "
        f"assumed to reach {_OF_PRODUCTS:.0%}"
    )
    speeds = from_figures(
        units, rate=reached, bandwidth=bandwidth, length=length, element_bytes=4, how=how, source="products"
    )
    return replace(speeds, seconds=time.perf_counter() - began)


_WIDEST = 4096
_BLOCK = 64 << 20  # bytes that are copied
_OF_PRODUCTS = 0.5
