"""Random small models with what they are trained on: built from a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.dropin.random_rows import FEATURES, MARK
from tests.dropin.random_trunks import VOCABULARY, WIDTH, OwnTrunk, trunk_of
from tests.dropin.trunks import Answer, mean_of

if TYPE_CHECKING:
    from tests.dropin.random_recipes import Recipe

_LOGITS = {"classes": 2, "value": 1, "several": 3}


def model_of(recipe: Recipe) -> RandomModel:
    """Build the model of a recipe, always with the same values, and freeze what it says."""
    torch.manual_seed(recipe.seed)
    model = RandomModel(recipe)
    frozen = {
        "lower": model.parts[: 1 + recipe.depth],
        "trunk": [[model.trunk]],
        "embeddings": model.parts[:1],
        "one above": model.parts[-1:],
        "all but biases": [[model.trunk]],
        "nothing": [],
    }[recipe.frozen]
    for part in frozen:
        for module in part:
            module.requires_grad_(requires_grad=False)
    if recipe.frozen == "all but biases":
        for name, parameter in model.trunk.named_parameters():
            parameter.requires_grad_(name.endswith("bias"))
    return model


def _head(kind: str, outputs: int) -> nn.Module:
    linear = nn.Linear(WIDTH, outputs)
    if kind == "zero":
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    if kind == "deep":
        return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), linear)
    return nn.Sequential(nn.LayerNorm(WIDTH), linear) if kind == "normed" else linear


class RandomModel(nn.Module):
    """A trunk, a pooling, a head and a loss, as a recipe says.

    Attributes:
        trunk: What is frozen in part.
        parts: Per part of the trunk, from the lowest on, its modules.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self._recipe = recipe
        self.trunk, parts = trunk_of(recipe)
        self.parts: list[list[nn.Module]] = [list(part) for part in parts]
        self.head = _head(recipe.head, _LOGITS[recipe.loss])
        self.score = nn.Linear(WIDTH, 1) if recipe.pooling == "attention" else None
        self.features = nn.Linear(FEATURES, WIDTH) if recipe.second == "features" else None
        self.project = nn.Linear(2 * WIDTH, WIDTH) if recipe.pooling == "layers" else None
        self.token_head = nn.Linear(WIDTH, 3) if recipe.further == "tokens" else None
        self.second_head = nn.Linear(WIDTH, 1) if recipe.further == "second head" else None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        input_ids_b: Tensor | None = None,
        attention_mask_b: Tensor | None = None,
        features: Tensor | None = None,
        name: str | None = None,
        labels: Tensor | None = None,
    ) -> Any:
        """The usual outputs, in the form that the recipe says."""
        segments, ids = token_type_ids, input_ids
        if self._recipe.second == "segments" and features is not None:
            segments = (ids + features.sum(1, keepdim=True).long()) % 2
        if self._recipe.second == "labels" and labels is not None:
            ids = ids.where(labels[:, None] == 1, (ids * 7) % VOCABULARY)
        hidden, states = self._states(ids, attention_mask, segments)
        pooled = self._pooled(hidden, states, ids, attention_mask, name)
        if input_ids_b is not None and attention_mask_b is not None:
            hidden_b, states_b = self._states(input_ids_b, attention_mask_b, None)
            pooled = pooled - 0.5 * self._pooled(hidden_b, states_b, input_ids_b, attention_mask_b, name)
        if self.features is not None and features is not None:
            pooled = pooled + self.features(features)
        logits = self.head(pooled)
        loss = None
        if labels is not None:
            further = self._further(hidden, pooled, logits, ids, attention_mask, segments, labels)
            loss = self._loss(logits, labels) + further
        return self._answer(loss, logits, hidden, pooled)

    def _states(self, ids: Tensor, mask: Tensor, segments: Tensor | None) -> tuple[Tensor, Any]:
        """The last states of all tokens, (rows, length, width), and those of each layer."""
        if isinstance(self.trunk, OwnTrunk):
            own: tuple[Tensor, Any] = self.trunk(ids, mask, segments)
            return own
        options: dict[str, Any] = {"token_type_ids": segments} if segments is not None else {}
        if self._recipe.pooling == "layers":
            options["output_hidden_states"] = True
        output = self.trunk(ids, attention_mask=mask, **options)
        return output.last_hidden_state, output.hidden_states if self._recipe.pooling == "layers" else None

    def _pooled(self, hidden: Tensor, states: Any, ids: Tensor, mask: Tensor, name: str | None) -> Tensor:
        """(rows, width) of each text."""
        pooling = self._recipe.pooling if name is None else name
        if pooling in {"mean", "mean of all"}:
            return mean_of(hidden, mask) if pooling == "mean" else hidden.mean(1)
        if pooling == "max":
            return hidden.masked_fill(mask.unsqueeze(-1) == 0, -1e4).amax(1)
        if pooling == "attention" and self.score is not None:
            scores = self.score(hidden).masked_fill(mask.unsqueeze(-1) == 0, -1e4)
            weighted: Tensor = (scores.softmax(1) * hidden).sum(1)
            return weighted
        if pooling == "layers" and self.project is not None:
            rows = torch.arange(len(ids))
            first = mask.argmax(1)
            both: Tensor = self.project(torch.cat([states[-1][rows, first], states[-2][rows, first]], dim=-1))
            return both
        places = torch.arange(ids.shape[1])
        place = {
            "last": lambda: (mask * (places + 1)).argmax(1),
            "last by ids": lambda: ((ids != 0) * (places + 1)).argmax(1),
            "mark": lambda: (ids == MARK).int().argmax(1),
            "argmax": lambda: hidden[..., 0].masked_fill(mask == 0, -1e4).argmax(1),
        }.get(pooling, lambda: mask.argmax(1))()
        return hidden[torch.arange(len(ids)), place]

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self._recipe.loss == "classes":
            return functional.cross_entropy(logits, labels)
        if self._recipe.loss == "value":
            return functional.mse_loss(logits.squeeze(-1), labels)
        return functional.binary_cross_entropy_with_logits(logits, labels)

    def _further(
        self,
        hidden: Tensor,
        pooled: Tensor,
        logits: Tensor,
        ids: Tensor,
        mask: Tensor,
        segments: Tensor | None,
        labels: Tensor,
    ) -> Tensor:
        """What the loss has besides."""
        kind = self._recipe.further
        if kind in {"contrast", "contrast of means"}:
            vectors = functional.normalize(pooled if kind == "contrast" else mean_of(hidden, mask), dim=-1)
            one = labels.reshape(len(labels), -1)[:, :1]
            return functional.binary_cross_entropy_with_logits(vectors @ vectors.T, (one == one.T).float())
        if kind == "tokens" and self.token_head is not None:
            targets = (ids % 3).where(mask == 1, -100)
            return functional.cross_entropy(self.token_head(hidden).flatten(0, 1), targets.flatten())
        if kind == "second head" and self.second_head is not None:
            return functional.mse_loss(self.second_head(pooled).mean(-1), labels.reshape(len(labels), -1)[:, 0].float())
        if kind in {"twice", "twice, changed"} and self.training:
            changed = ids.where(torch.arange(ids.shape[1]) % 3 != 1, 5) if kind == "twice, changed" else ids
            again, states = self._states(changed, mask, segments)
            other = self.head(self._pooled(again, states, changed, mask, None))
            return self._loss(other, labels) + functional.mse_loss(other, logits)
        return hidden.pow(2).mean() if kind == "penalty" else torch.zeros(())

    def _answer(self, loss: Tensor | None, logits: Tensor, hidden: Tensor, pooled: Tensor) -> Any:
        form = self._recipe.output
        output = Answer(loss=loss, logits=logits)
        if form == "states":
            output.hidden = hidden
        if form == "vector":
            output.others = pooled
        if form == "dict":
            return {name: value for name, value in output.items() if value is not None}
        return output.to_tuple() if form == "tuple" else output
