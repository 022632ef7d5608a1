"""Layers beneath a log: other ones can come and go, and the log is replayed on what lies there then.

What enters is measured first. All layers together may cost general text at most ``SHARE`` of what the guardrail allows
learning; what they cost is taken from what may be learned on top of them (``Guardrail.limit``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelm.errors import ProfileError
from edgelm.learn.adaptation import Adaptation
from edgelm.model.layers import Layer, with_layers

SHARE = 0.5
"""Of ``LearnConfig.gate_limit``: layers may make general text half as much worse as they and learning may together."""
_STEPS = 8
"""Tokens that are scored at a time."""


def general_cost(adaptation: Adaptation, layers: Sequence[Layer]) -> float:
    """Share by which general text costs more with ``layers`` alone than with the bare model; below 0: it costs less.

    It is NaN or infinite if the weights would be broken. Nothing is changed.
    """
    from edgelm.learn.guardrail import Guardrail
    from edgelm.network.network import Network

    model, bare = adaptation.model, adaptation.model.bare()
    weights = {name: np.asarray(with_layers(array, name, layers), np.float32) for name, array in bare.items()}
    operands = {**model.operands, **weights}
    guardrail = Guardrail(model.config, model.tokenizer, operands, bare, adaptation.config)
    with np.errstate(over="ignore", invalid="ignore"):
        return guardrail.excess_of_all(Network(model.config, operands, (), _STEPS, forward_alone=True))


def check_layers(adaptation: Adaptation, layers: Sequence[Layer]) -> float:
    """What ``general_cost`` says, if it may be so.

    Raises
    ------
    ProfileError
        General text would become worse than layers may make it.
    """
    excess, limit = general_cost(adaptation, layers), SHARE * adaptation.config.gate_limit
    if not excess <= limit:
        cost = f"{excess:.1%} more" if excess < 10 else "many times as much, or nothing that is finite"
        names = ", ".join(layer.name for layer in layers)
        raise ProfileError(
            f"with the layers {names} general text would cost {cost}, {limit:.1%} is allowed; nothing was changed"
        )
    return excess


def set_layers(adaptation: Adaptation, layers: Sequence[Layer]) -> None:
    """Makes these the layers beneath what was learned, lowest first; ``catch_up`` must follow, which replays all.

    The weights are those of the layers alone until then. Layers from outside are to be checked before.

    Raises
    ------
    ProfileError, ModelFileError
        Something learned cannot be replayed, the disk fails, or this model can have other layers only when it is opened
        anew: all is as it was.
    """
    assert adaptation.profile is not None
    model, before = adaptation.model, adaptation.model.layers
    model.set_layers(layers)
    try:
        adaptation.profile.set_layers(layers)
    except BaseException:
        model.set_layers(before)
        raise
    adaptation.base = model.base()
    adaptation.load_checkpoint()
