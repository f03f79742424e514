"""The frozen mode: keeping frozen modules in eval mode whatever ``model.train()`` says.

``nn.Module.train`` walks down by calling ``train`` on each child, so an attribute of that name on one
module decides for it. The attribute is an object with a reference to its module; so it is copied by
``copy.deepcopy``, pickled, and moved by ``.to(device)`` with the module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

from frostline.base.modules import modules_of
from frostline.plan.plan import FrozenMode


class StayInEval:
    """Stands in for the ``train`` method of one frozen module.

    Attributes:
        asked: The mode that was asked for last, which the module takes once it is let go.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.asked = module.training

    def __call__(self, mode: bool = True) -> nn.Module:
        """Put the module in eval mode, whatever is asked for, and return it."""
        inside = modules_of(self._module)
        for inner in inside:
            if type(inner).train is not nn.Module.train:  # it does more than to set the mode
                type(inner).train(inner, False)
            elif inner.training:
                inner.training = False
        # In a pass of its own: what does more may ask the same of the modules inside it.
        for inner in inside:
            pin = vars(inner).get("train")
            if isinstance(pin, StayInEval):
                pin.asked = mode
        return self._module


def is_pinned(module: nn.Module) -> bool:
    """Whether a module is kept in eval mode."""
    return isinstance(vars(module).get("train"), StayInEval)


def pin(modules: Iterable[nn.Module]) -> None:
    """Keep modules in eval mode from now on.

    Args:
        modules: The modules; those inside one of them included.
    """
    pins = []
    for module in modules:
        vars(module).setdefault("train", StayInEval(module))
        pins.append((module, vars(module)["train"].asked))
    for module, _ in pins:
        module.train()
    for module, asked in pins:  # putting a module in eval mode asks the same of those inside it
        vars(module)["train"].asked = asked


def unpin(module: nn.Module) -> None:
    """Let a module follow ``train()`` again, from the mode on that was asked for last."""
    if is_pinned(module):
        module.training = vars(module).pop("train").asked


def frozen_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that are frozen as a whole.

    A module is frozen when it has parameters, its children's included, and none of them trains. What is
    inside a frozen module (dropout, activations, normalisations without parameters) is frozen with it.
    """
    parameters = list(model.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        yield from model.modules()
        return
    for child in model.children():
        yield from frozen_modules(child)


def frozen_mode_of(model: nn.Module) -> FrozenMode:
    """Read how the frozen modules of a model behave: ``"train"`` as soon as one of them follows ``train()``."""
    return "eval" if all(is_pinned(module) for module in frozen_modules(model)) else "train"


def follow_flags(model: nn.Module, *, stay_in_eval: bool) -> None:
    """Bring the modes of all modules in line with the flags of their parameters.

    Args:
        model: The model.
        stay_in_eval: Whether frozen modules are kept in eval mode.
    """
    frozen = {id(module): module for module in frozen_modules(model)} if stay_in_eval else {}
    released = [module for module in model.modules() if is_pinned(module) and id(module) not in frozen]
    for module in released:
        unpin(module)
    pin(frozen.values())
