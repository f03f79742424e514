"""What a random model is: every choice, drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from typing import Any

# What ordinary models have comes first, and twice as often as all else together.
_CHOICES: dict[str, tuple[Any, ...]] = {
    "pooling": ("first", "last by ids", "mean", "mean of all", "max", "attention", "mark", "argmax", "layers", "last"),
    "head": ("linear", "deep", "zero", "normed"),
    "loss": ("classes", "value", "several"),
    "further": (None, "contrast", "contrast of means", "tokens", "second head", "twice", "twice, changed", "penalty"),
    "output": ("logits", "dict", "tuple", "states", "vector"),
    "second": (None, "text", "features", "segments", "segments at times", "name", "labels"),
    "side": ("right", "left"),
    "padding": ("longest", "fixed", "by 8"),
    "lengths": ("mixed", "short", "alike", "wide"),
}
_ENCODERS = ("bert", "roberta", "distilbert")
_TRUNKS = (*_ENCODERS, "gpt2", "own", "own", "own", "own")
_PLAIN_POOLINGS = ("first", "mean", "max", "attention")
_ITS_OWN = "as it has them"
_FROZEN = ("lower", "lower", "lower", "trunk", "trunk", "nothing", "embeddings", "all but biases", "one above")
_WIRINGS = ("chain", "dense", "first everywhere", "first at last", "shared", "parallel", "gated", "mixing")


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that is drawn.

    Attributes:
        seed: Where it comes from.
        trunk: Whose it is: that of a type of transformers', or its own.
        layers: How many.
        attention: ``"sdpa"`` and ``"eager"`` through transformers' interface; ``"torch"`` without it.
        causal: Whether tokens see only what stands before them.
        norms: Behind attention and feed-forward, or before.
        positions: How an own trunk knows them: absolute, by the mask, as a bias, rotary, or not at all.
        segments: Whether it knows two kinds of tokens.
        wiring: What each of its layers is given.
        frozen: ``"nothing"``, ``"lower"`` (embeddings and some layers), ``"trunk"``, ``"embeddings"``,
            ``"all but biases"``, or ``"one above"`` (a layer over one that trains).
        depth: So many layers are frozen, where some are.
        pooling: What is read of the last states.
        head: What reads it.
        loss: Of what kind of label.
        further: A further term of the loss.
        output: What the forward gives out.
        second: What it is given besides a text.
        side: Where texts are padded.
        padding: How far.
        lengths: Of the texts.
        pads: Whether some texts have the pad token among their own.
        repeats: Whether texts come several times, with other labels.
        rows: So many are trained on.
        batch: Rows of a step.
    """

    seed: int
    trunk: str
    layers: int
    attention: str
    causal: bool
    norms: str
    positions: str
    segments: bool
    wiring: str
    frozen: str
    depth: int
    pooling: str
    head: str
    loss: str
    further: str | None
    output: str
    second: str | None
    side: str
    padding: str
    lengths: str
    pads: bool
    repeats: bool
    rows: int
    batch: int

    def __str__(self) -> str:
        """One choice a line."""
        return "\n".join(f"  {name}: {value}" for name, value in asdict(self).items())

    @property
    def is_plain(self) -> bool:
        """Whether it is an ordinary model of transformers, of which a frozen part must be computed once."""
        ordinary = all(getattr(self, name) == values[0] for name, values in _CHOICES.items() if name != "pooling")
        return (
            ordinary
            and self.trunk in _ENCODERS
            and self.pooling in _PLAIN_POOLINGS
            and self.frozen in {"lower", "trunk"}
            and self.attention == "sdpa"
            and not self.pads
        )


def recipe_of(seed: int) -> Recipe:
    """Draw all choices from a seed; one model in six is an ordinary one."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    trunk = draw.choice(_TRUNKS)
    own = trunk == "own"
    layers = draw.randint(2, 4)
    batch = draw.choice((1, 2, 3, 4, 4, 6, 8, 8))
    drawn = {name: _mostly_the_first(draw, values) for name, values in _CHOICES.items()}
    drawn["pooling"] = draw.choice(_CHOICES["pooling"])
    recipe = Recipe(
        seed=seed,
        trunk=trunk,
        layers=layers,
        attention=draw.choice(("sdpa", "sdpa", "eager", "torch") if own else ("sdpa", "sdpa", "eager")),
        causal=draw.random() < 0.3 if own else trunk == "gpt2",
        norms=draw.choice(("behind", "before")),
        positions=draw.choice(("absolute", "absolute", "by mask", "bias", "rotary", "none")),
        segments=draw.random() < 0.5 if own else trunk == "bert",
        wiring=draw.choice(("chain", *_WIRINGS)),
        frozen=draw.choice(_FROZEN),
        depth=draw.randint(1, layers - 1),
        pads=draw.random() < 0.2,
        repeats=draw.random() < 0.3,
        rows=8 + 2 * batch,
        batch=batch,
        **drawn,
    )
    return _consistent(_ordinary(recipe, draw) if draw.random() < 1 / 6 else recipe)


def _mostly_the_first(draw: random.Random, values: tuple[Any, ...]) -> Any:
    return values[0] if draw.random() < 2 / 3 else draw.choice(values[1:])


def _ordinary(recipe: Recipe, draw: random.Random) -> Recipe:
    """The same as people mostly have it."""
    plain: dict[str, Any] = {name: values[0] for name, values in _CHOICES.items()}
    plain |= {"trunk": draw.choice(_ENCODERS), "pooling": draw.choice(_PLAIN_POOLINGS), "causal": False}
    return replace(recipe, **plain, frozen=draw.choice(("lower", "lower", "trunk")), attention="sdpa", pads=False)


def _consistent(recipe: Recipe) -> Recipe:
    """The same without what does not go together."""
    if recipe.trunk != "own":
        recipe = replace(recipe, norms=_ITS_OWN, positions=_ITS_OWN, wiring=_ITS_OWN, segments=recipe.trunk == "bert")
    if not recipe.segments and recipe.second in {"segments", "segments at times"}:
        recipe = replace(recipe, second="features")
    if recipe.loss != "classes" and recipe.second == "labels":
        recipe = replace(recipe, second=None)
    return recipe
