"""What the engine does for a task on a tiny model, and how its steps compare with the plain ones."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

import frostline as fl
from frostline.base.random_state import seed_all
from frostline.engine.behind_mask import PaddingRead
from frostline.engine.dropout import NoDropout
from frostline.engine.engine import Engine
from frostline.engine.outputs import tensors_of
from frostline.engine.selfcheck.comparison import difference
from frostline.engine.settings import EngineSettings
from frostline.store.place import StorePlace
from tests.zoo.admitting import freeze_beneath, training
from tests.zoo.task_build import LENGTHS, ONE_WIDTH, Task, build_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from frostline.engine.selfcheck.result import SelfCheck

_ROOM = 1 << 24


@dataclass(frozen=True)
class TaskSurvey:
    """What the engine does for one task on one tiny model, of which the top layer and all above it train.

    Attributes:
        model_type: As transformers registers it.
        check: The self-check; None where no call could be answered.
        reason: Why a call was last answered plainly, in words; None if none was.
        answered: How many of three calls were answered on a fast path.
        computed: How many rows were computed for the store, of the five that there are.
        outputs: Largest difference from the plain steps' loss and outputs, relative to the larger of 1 and their size.
        gradients: The same of the gradients of what trains, relative to the largest of them.
    """

    model_type: str
    check: SelfCheck | None
    reason: str | None
    answered: int
    computed: int
    outputs: float
    gradients: float


def top_layer(anatomy: fl.ModelMap) -> str:
    """The last unit that is a layer."""
    return [unit.name for unit in anatomy.units if unit.kind == "layer"][-1]


def survey_task(task: Task, model_type: str) -> TaskSurvey:
    """Take three steps on the engine beside plain ones: all rows, the same in another order, and some of them."""
    model, batch = build_for(task, model_type)
    if "use_cache" in inspect.signature(model.forward).parameters:
        batch["use_cache"] = False  # as the engine asks for none
    anatomy = fl.ModelMap.of(model)
    freeze_beneath(model, anatomy, top_layer(anatomy))
    order, some = [4, 2, 0, 1, 3], [4, 2]
    batches = [batch, _rows(batch, order), _rows(batch, some)]
    if (task.name, model_type) not in ONE_WIDTH:
        batches[-1] = _narrow(batches[-1], some)
    engine = Engine(model, EngineSettings(store="memory", guard=False))
    outputs = gradients = 0.0
    with training(model), NoDropout():
        for inputs in batches:
            plain = _step(model, partial(model, **inputs))
            if engine.can_read(inputs) and engine.checked is None:
                engine.check(inputs)
                engine.use(StorePlace(None, _ROOM, None, writer=0, about={}))
            own = _on(engine, model, inputs)
            per_token = engine.checked.per_token if engine.checked is not None else frozenset()
            one, other = _far(own, plain, inputs, per_token)
            outputs, gradients = max(outputs, one), max(gradients, other)
    return TaskSurvey(
        *(model_type, engine.checked, engine.reason, engine.answered, engine.computed), outputs, gradients
    )


def _rows(batch: dict[str, Any], places: list[int]) -> dict[str, Any]:
    return {name: value[places] if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


def _narrow(batch: dict[str, Any], places: list[int]) -> dict[str, Any]:
    """The same rows without the positions that are padding in all of them; of texts only."""
    mask = batch.get("attention_mask")
    width = max(LENGTHS[place] for place in places)
    if mask is None or mask.dim() != 2:
        return batch
    shape = mask.shape
    aligned = {n for n, value in batch.items() if isinstance(value, torch.Tensor) and value.shape[:2] == shape}
    return {n: value[:, :width].contiguous() if n in aligned else value for n, value in batch.items()}


Outcome = tuple[dict[str, "Tensor"], list["Tensor | None"]]


def _step(model: nn.Module, call: Callable[[], Any]) -> Outcome:
    seed_all(0)
    output = call()
    trains = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(output.loss, trains, allow_unused=True)
    return {name: value.detach() for name, value in tensors_of(output).items()}, list(gradients)


def _on(engine: Engine, model: nn.Module, inputs: dict[str, Any]) -> Outcome:
    """A step as the Trainer takes it: plainly again, where the loss reads padding."""
    with engine.active():
        try:
            return _step(model, partial(model, **inputs))
        except PaddingRead as read:
            engine.take_back(str(read))
        return _step(model, partial(model, **inputs))


def _far(own: Outcome, plain: Outcome, inputs: dict[str, Any], per_token: frozenset[str]) -> tuple[float, float]:
    """Largest differences of outputs, of real tokens where there is one value per token, and of gradients."""
    if own[0].keys() != plain[0].keys():
        return float("inf"), float("inf")
    outputs = 0.0
    for name in own[0]:
        pair = own[0][name], plain[0][name]
        if name in per_token and "attention_mask" in inputs:
            real = inputs["attention_mask"].bool()
            pair = pair[0][real], pair[1][real]
        outputs = max(outputs, difference(*pair, 1.0))
    largest = max((float(value.abs().max()) for value in plain[1] if value is not None), default=0.0)
    pairs = zip(own[1], plain[1], strict=True)
    return outputs, max((difference(one, other, largest) for one, other in pairs), default=0.0)
