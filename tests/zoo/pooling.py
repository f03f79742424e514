"""Which positions of the last layer's output the logits depend on, found by experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tests.zoo.inputs import LENGTHS

if TYPE_CHECKING:
    import frostline as fl
    from tests.zoo.build import Specimen

# Their last layer is called past the hooks of modules; the module around it gives out the same.
_AROUND = {"reformer": "reformer.encoder", "squeezebert": "transformer.encoder"}
_ANY_WORD = 50  # some id of a word


def pooled_position(specimen: Specimen, anatomy: fl.ModelMap) -> str:
    """Say in words which positions reach the logits, by their gradient with respect to the last layer's output.

    Args:
        specimen: The model, which is put into the mode that its backward pass needs; gradients are left behind.
        anatomy: Its anatomy.
    """
    specimen.model.train(not specimen.backward_in_eval)
    length, positions = _reaching(specimen, anatomy, specimen.batch)
    shortened = f", of {length} that the text is shortened to" if length < max(LENGTHS) else ""
    if positions == [[0]] * len(LENGTHS):
        return f"first token{shortened}"
    if positions == [list(range(length))] * len(LENGTHS):
        return f"all {length} latents" if shortened else "all positions"
    if positions == [list(range(own)) for own in LENGTHS]:
        return "mean of the real tokens"
    if positions == [[length - 1]] * len(LENGTHS):
        return "last position, padding or not"
    if positions == [[min(own, length - 1)] for own in LENGTHS]:
        return "the position behind the last real token, of the decoder"
    if positions == [[own - 1] for own in LENGTHS]:
        return _last_token_or_end(specimen, anatomy)
    raise AssertionError(f"{specimen.model_type} pools {positions}: give it a name")


def _last_token_or_end(specimen: Specimen, anatomy: fl.ModelMap) -> str:
    """Tell the last token from the token that ends the text: put that one two places earlier, and look again."""
    end = getattr(specimen.model.config.get_text_config(), "eos_token_id", None)
    if end is None:
        return "last real token"
    ids = specimen.batch["input_ids"].clone()
    for row, length in enumerate(LENGTHS):
        ids[row, length - 1], ids[row, length - 3] = _ANY_WORD, end
    _, positions = _reaching(specimen, anatomy, specimen.batch | {"input_ids": ids})
    if positions == [[length - 3] for length in LENGTHS]:
        return "token that ends the text (eos), of the decoder"
    assert positions == [[length - 1] for length in LENGTHS]
    return "last real token"


def _reaching(specimen: Specimen, anatomy: fl.ModelMap, batch: dict[str, torch.Tensor]) -> tuple[int, list[list[int]]]:
    """Length of the last layer's output, and per text the positions of it that reach the logits."""
    stack = next(stack for stack in anatomy.stacks if stack.name in {"", "decoder"})
    watched = specimen.model.get_submodule(_AROUND.get(specimen.model_type, stack.layers[-1][-1]))
    outputs: list[torch.Tensor] = []

    def keep(*passed: Any) -> None:
        output = _first_tensor(passed[-1])
        if not output.requires_grad:
            output.requires_grad_()
        output.retain_grad()
        outputs.append(output)

    handle = watched.register_forward_hook(keep)
    try:
        logits = specimen.model(**batch).logits
    finally:
        handle.remove()
    logits.square().sum().backward()
    gradient = outputs[-1].grad
    assert gradient is not None
    strength = gradient.abs().sum(dim=-1)  # (texts, positions)
    if strength.shape[0] != len(LENGTHS):  # XLNet puts the positions first
        strength = strength.T
    return strength.shape[1], [row.nonzero().flatten().tolist() for row in strength]


def _first_tensor(output: Any) -> torch.Tensor:
    while not isinstance(output, torch.Tensor):
        output = next(iter(output.values() if hasattr(output, "values") else output))
    return output
