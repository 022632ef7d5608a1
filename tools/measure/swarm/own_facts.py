"""Whether a device still knows what it was told when the layer of the others lies beneath its log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgelm.measure.recall import ToldFact, recall
from edgelm.model.layers import Layer
from edgelm.runtime import EngineOptions
from edgelm.swarm.update import shared_layer
from tools.measure.swarm.devices import Swarm


def own_facts(swarm: Swarm, texts: dict[str, str], n_rounds: int, facts: Sequence[ToldFact]) -> dict[str, Any]:
    """Open recall of ``facts`` by a device of its own, without a layer and with that of the devices of ``texts``."""
    total = swarm.nothing()
    for number in range(1, n_rounds + 1):
        total = swarm.round(total, list(texts.values()), number)
    options = EngineOptions(str(swarm.model.folder))
    layer = Layer("swarm", "", shared_layer(total, swarm.model))
    found = {"without": recall(options, facts), "with": recall(replace(options, layers=(layer,)), facts)}
    return found | {"general_cost": swarm.general_cost(total)}
