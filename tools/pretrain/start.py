"""Begins a run with what another model learned, whose mixer may have other sections.

Tensors that both have in one shape are taken as they are. Of the mixer's matrices the parts of equal meaning are taken:
features of the slope section channel by channel, the decay section where its heads have the same shape. What the
other model lacks stays random where the stream is read and is 0 where it is written to, so that at first
it changes nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgelm.cells.gated_delta.paper import GatedDelta
from edgelm.model.config import ModelConfig

Columns = list[tuple[slice, slice]]
SECTIONS = ("n_heads", "key_dim", "value_dim", "slope_dim")
"""Sizes in which the mixers may differ."""


def _channels(new: GatedDelta, old: GatedDelta, begin_new: int = 0, begin_old: int = 0) -> Columns:
    """Columns of the slope section in both, a channel at a time: the features that both have."""
    width_new, width_old = new.slope_dim // new.n_channels, old.slope_dim // old.n_channels
    kept, found = min(width_new, width_old), []
    for channel in range(new.n_channels):
        first_new, first_old = begin_new + channel * width_new, begin_old + channel * width_old
        found.append((slice(first_new, first_new + kept), slice(first_old, first_old + kept)))
    return found


def _without_sections(config: ModelConfig) -> dict[str, Any]:
    """All that two models must have in common."""
    fields = config.to_dict()
    fields["mixer"] = {name: value for name, value in fields["mixer"].items() if name not in SECTIONS}
    return fields


def _same_heads(new: GatedDelta, old: GatedDelta) -> bool:
    return (new.n_heads, new.key_dim, new.value_dim) == (old.n_heads, old.key_dim, old.value_dim)


def _columns(name: str, new: GatedDelta, old: GatedDelta) -> Columns:
    """Which features of a tensor of the mixer mean the same in both models."""
    found = _channels(new, old)
    if name == "w_in":
        found += _channels(new, old, new.conv_dim, old.conv_dim)  # the branches us beside the values vs
    if not _same_heads(new, old):
        return found
    parts = {"conv": (new.conv_dim, old.conv_dim), "w_out": (new.mix_dim, old.mix_dim)}
    if name in parts:
        ends = parts[name]
        return [*found, (slice(new.slope_dim, ends[0]), slice(old.slope_dim, ends[1]))]
    rest = (slice(new.conv_dim + new.slope_dim, None), slice(old.conv_dim + old.slope_dim, None))
    return [*found, (slice(new.slope_dim, new.conv_dim), slice(old.slope_dim, old.conv_dim)), rest]


@torch.no_grad()
def begin_from(model: nn.Module, config: ModelConfig, weights: dict[str, Tensor], old: ModelConfig) -> list[str]:
    """Copies what the other model's ``weights`` mean for ``model``; returns the tensors that it lacks some of.

    Raises
    ------
    ValueError
        The models differ in more than the sections of their mixers.
    """
    common = _without_sections(config)
    if common != _without_sections(old) or common["mixer"]["kind"] != GatedDelta.KIND:
        raise ValueError("only models that differ in the sections of their mixers can begin with each other's weights")
    lacking, same_heads = [], _same_heads(config.mixer, old.mixer)
    for name, parameter in model.named_parameters():
        kind, given = name.rsplit(".", 1)[-1], weights[name]
        if kind in ("w_in", "conv", "w_out") and ".mixer." in name:
            if kind == "w_out":
                parameter.zero_()
            axis = 1 if kind == "w_in" else 0
            for target, source in _columns(kind, config.mixer, old.mixer):
                part = parameter[:, target] if axis else parameter[target]
                part.copy_(given[:, source] if axis else given[source])
            if parameter.shape != given.shape or not same_heads:
                lacking.append(name)
        elif parameter.shape == given.shape and (".mixer." not in name or kind == "norm" or same_heads):
            parameter.copy_(given)
        else:
            lacking.append(name)
    return lacking
