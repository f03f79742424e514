"""The messages that people meet because something is frozen, as torch, transformers, accelerate and PEFT word them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        phrase: The part of it that tells it from others.
        cause: What it means, in one sentence or two.
        mend: What to do.
        slug: The check that finds the same fault in a model; ``""`` where there is none.
        also: Other wordings of it, such as those of earlier versions.
        source: The library that says it.
    """

    phrase: str
    cause: str
    mend: str
    slug: str = ""
    also: tuple[str, ...] = ()
    source: str = "torch"


MESSAGES: tuple[Message, ...] = (
    Message(
        "does not require grad and does not have a grad_fn",
        "The loss depends on nothing that trains: all is frozen, or detach or no_grad cuts the way.",
        "Let something train, the head at least, and compute the loss outside no_grad.",
        "everything-frozen",
    ),
    Message(
        "None of the inputs have requires_grad=True",
        "A reentrant checkpoint got inputs that need no gradient, as all beneath is frozen; what is inside gets none.",
        "Checkpoint with use_reentrant=False, or call model.enable_input_require_grads().",
        "checkpointing-cuts-grad",
    ),
    Message(
        "the use_reentrant parameter should be passed explicitly",
        "A checkpoint was made without saying which kind; over frozen inputs the reentrant kind cuts the gradient.",
        "Pass use_reentrant=False.",
        "checkpointing-cuts-grad",
    ),
    Message(
        "A different number of tensors was saved during the original forward and recomputation",
        "Between the forward and the backward something inside a checkpoint was frozen, thawed or put in another mode.",
        "Change flags and modes between steps only, not between a forward and its backward.",
        also=("Recomputed values for the following tensors have different metadata",),
    ),
    Message(
        "does not support activation checkpointing",
        "The architecture has no checkpoints built in.",
        "Leave checkpointing off; freezing from the bottom saves the same memory for the frozen prefix.",
        also=("does not support gradient checkpointing",),
        source="transformers",
    ),
    Message(
        "optimizer got an empty parameter list",
        "The optimizer was given nothing: all is frozen, or the filter or the generator of parameters was empty.",
        "Let something train before the optimizer is built, and give it a list.",
        "everything-frozen",
    ),
    Message(
        "loaded state dict contains a parameter group that doesn't match the size of optimizer's group",
        "Other parameters train than when the optimizer was saved, as after freezing or thawing in between.",
        "Freeze as in the saved run before the optimizer is built, or start it afresh.",
        "trainable-not-in-optimizer",
    ),
    Message(
        "loaded state dict has a different number of parameter groups",
        "The optimizer was saved with other groups; a group that froze to nothing is often left out.",
        "Build the same groups as in the saved run, or start the optimizer afresh.",
        "trainable-not-in-optimizer",
    ),
    Message(
        "some parameters appear in more than one parameter group",
        "One tensor was given to two groups; tied weights have several names.",
        "Sort parameters into groups by named_parameters() of the whole model, which lists each once.",
        "duplicate-in-optimizer",
    ),
    Message(
        "optimizer contains a parameter group with duplicate parameters",
        "One tensor is in a group twice, and moves twice per step.",
        "List each parameter once.",
        "duplicate-in-optimizer",
    ),
    Message(
        "can't optimize a non-leaf Tensor",
        "What was given to the optimizer is a result and no parameter, such as a weight after .to(device) or a sum.",
        "Give it model.parameters(), after the model was moved and cast.",
        "optimizer-holds-strangers",
    ),
    Message(
        "optimizer can only optimize Tensors",
        "The optimizer was given names or pairs instead of parameters, as from a filter over named_parameters().",
        "Give it [p for p in model.parameters() if p.requires_grad].",
    ),
    Message(
        "Must flatten tensors with uniform `requires_grad`",
        "FSDP joins the parameters of a unit in one tensor, and some of them are frozen.",
        "Wrap so that each unit is frozen or trains as a whole, pass use_orig_params=True, or use FSDP2.",
        "fsdp-mixed",
    ),
    Message(
        "Expected to have finished reduction in the prior iteration",
        "DistributedDataParallel waits for gradients that do not come: of what was frozen since, or is unused.",
        "Freeze before wrapping; for what is unused, freeze it or pass find_unused_parameters=True.",
        "frozen-after-ddp",
    ),
    Message(
        "DistributedDataParallel is not needed when a module doesn't have any parameter that requires a gradient",
        "All of the wrapped module is frozen.",
        "Let something train, or leave a wholly frozen module unwrapped.",
        "everything-frozen",
    ),
    Message(
        "Expected to mark a variable ready only once",
        "A parameter got its gradient twice in one backward, as with reentrant checkpoints or shared layers under DDP.",
        "Checkpoint with use_reentrant=False, or pass static_graph=True.",
    ),
    Message(
        "Attempting to unscale FP16 gradients",
        "Weights in float16 train under a GradScaler, which wants their gradients in float32.",
        "Load what trains in float32; only what is frozen may stay in float16.",
        "fp16-unscale",
    ),
    Message(
        "No inf checks were recorded",
        "The GradScaler found no gradient in the optimizer: what it holds is frozen, or another backward ran.",
        "Give the optimizer what trains, and call backward on the scaled loss before step.",
        "trainable-not-in-optimizer",
    ),
    Message(
        "those params were newly initialized because missing from the checkpoint",
        "The checkpoint has no values for these tensors, so they are random: right for a new head, and only there.",
        "Let them train; look that none of them is frozen.",
        "new-but-frozen",
        also=("newly initialized", "| MISSING"),
        source="transformers",
    ),
    Message(
        "Reinit due to size mismatch",
        "The checkpoint's tensor has another shape (mostly a head for other labels) and was drawn anew.",
        "Let it train; where it is no head, load the right configuration.",
        "new-but-frozen",
        also=("ckpt weights were loaded, but they did not match the original empty weight shapes",),
        source="transformers",
    ),
    Message(
        "You set `ignore_mismatched_sizes` to `False`",
        "The checkpoint's head has another shape than the labels ask for.",
        "Pass ignore_mismatched_sizes=True, and let the new head train.",
        "new-but-frozen",
        source="transformers",
    ),
    Message(
        "can be ignored when loading from different task/architecture",
        "The checkpoint holds tensors that this model has no place for, mostly another task's head.",
        "Nothing is to be done, unless a part is missing that you wanted.",
        source="transformers",
    ),
    Message(
        "You cannot perform fine-tuning on purely quantized models",
        "All weights are quantised, so nothing can train.",
        "Add adapters with PEFT, or load the weights unquantised.",
        "integer-weights",
        source="transformers",
    ),
    Message(
        "You can't train a model that has been loaded in 8-bit or 4-bit precision",
        "A quantised model lies on another device than the process trains on.",
        "Load it with device_map={'': PartialState().process_index}, and train adapters above it.",
        "integer-weights",
        source="accelerate",
    ),
    Message(
        "Only Tensors of floating point and complex dtype can require gradients",
        "A weight of whole numbers (quantised) was to train.",
        "Make the parameter with requires_grad=False, and keep it frozen.",
        "integer-weights",
    ),
    Message(
        "you can only change requires_grad flags of leaf variables",
        "The flag of a result was set, not of a parameter.",
        "Set it on the parameters of the model; use detach() to cut a result off.",
    ),
    Message(
        "a leaf Variable that requires grad is being used in an in-place operation",
        "A weight that trains was written to outside no_grad.",
        "Write to weights inside torch.no_grad(), before training.",
        also=("a view of a leaf Variable that requires grad is being used in an in-place operation",),
    ),
    Message(
        "has been modified by an inplace operation",
        "A tensor that the backward needs was changed after the forward, such as a weight or a statistic.",
        "Change weights, flags and statistics between steps only.",
    ),
    Message(
        "Trying to backward through the graph a second time",
        "Stored outputs of a part that was meant to be frozen still carry its graph, and are used again.",
        "Compute what is frozen under torch.no_grad(), or detach() it before it is stored.",
        "trains-below-frozen",
    ),
    Message(
        "Inference tensors cannot be saved for backward",
        "Outputs of a frozen part were computed in inference_mode, and what is above them trains.",
        "Compute them under torch.no_grad() instead, or clone() them outside.",
    ),
    Message(
        "One of the differentiated Tensors does not require grad",
        "The gradient of a frozen tensor was asked for.",
        "Ask only for tensors whose requires_grad is True.",
    ),
    Message(
        "appears to not have been used in the graph",
        "The gradient of a tensor was asked for that the loss does not depend on.",
        "Pass allow_unused=True, or leave out what has no part in the loss.",
        "no-gradient",
    ),
    Message(
        "cannot register a hook on a tensor that doesn't require gradient",
        "A hook for the gradient was put on a frozen tensor.",
        "Put hooks on what trains only.",
    ),
    Message(
        "Can't call numpy() on Tensor that requires grad",
        "Outputs carry a graph: they depend on what trains, or on embeddings whose outputs were made to need one.",
        "Call detach() first, or compute under torch.no_grad().",
        "input-grads-are-not-thawing",
    ),
    Message(
        "not found in the base model",
        "The adapter's target_modules name no module of this architecture.",
        "Look at the names with frostline inspect MODEL --names, and name layers as they are called there.",
        source="PEFT",
    ),
    Message(
        "No modules were targeted for adaptation",
        "Every module that target_modules names is excluded or saved as a whole, so no adapter was made.",
        "Name other target_modules, or fewer in exclude_modules and modules_to_save.",
        source="PEFT",
    ),
    Message(
        "You are trying to modify a model with PEFT for a second time",
        "The model holds adapters already, and new ones were put beside or over them; the old ones may be frozen.",
        "Call unload() on the earlier one, or load the base model afresh.",
        also=("Already found a `peft_config` attribute in the model",),
        source="PEFT",
    ),
    Message(
        "Error(s) in loading state_dict for",
        "The names in the file are not the model's: a wrapper (PEFT, DDP, compile) renamed them.",
        "Load into the model as it was when saved, or with from_pretrained, which knows these prefixes.",
    ),
)
