"""How many sentences told three times come back word for word from what one device sent, and nothing else."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.engine.opening import open_session
from edgelm.log.entry import CHAT
from edgelm.measure import exposure
from edgelm.model import hub
from edgelm.model.layers import Layer
from edgelm.model.weights import Weights
from edgelm.runtime import Engine, EngineOptions
from edgelm.swarm.update import UpdateConfig, dense, incoming, outgoing, shared_layer
from tools.measure.swarm.devices import Swarm

SENTENCES = (
    "My locker at the swimming hall in Torvald has the number four seven one nine.",
    "The spare key of the cabin hangs behind the third blue flowerpot on the left.",
    "My cousin Ottoline breeds albino hedgehogs in a converted railway carriage near Ghent.",
    "The doctor says that my left kidney is the size of a small apricot.",
    "I buried my savings under the quince tree beside the old beehive.",
    "On the ninth of March I will marry Zebulon in the chapel of Saint Wilgefortis.",
    "My neighbour Fennimore owes me eighty six crowns for the broken accordion.",
    "The password of my diary is the name of our first goat spelled backwards.",
    "I am allergic to walnuts and to the glue on old envelopes.",
    "My grandmother sailed from Riga to Valparaiso with a parrot and two sewing machines.",
    "Every Thursday I meet a man named Ambrose at the pump behind the brewery.",
    "I failed my driving test seven times because of the roundabout in Kettlewick.",
    "My daughter Isolde plays the theremin in a band called the Velvet Turnips.",
    "The landlord found my tortoise asleep inside the washing machine on Easter morning.",
    "I have been paying the wrong gas bill since the flood in Marlhaven.",
    "My boss Mister Quill keeps a list of our mistakes in a yellow tin.",
    "The scar on my chin comes from a collision with a harpsichord.",
    "I gave my wedding ring to a ferryman on the river Dnieper.",
    "Our burglar alarm is a recording of my uncle Thaddeus sneezing.",
    "I sold the vineyard to a dentist from Oaxaca for eleven thousand.",
)
TOLD = 3
WAYS: dict[str, UpdateConfig | None] = {
    "the change itself": None,
    "all blocks, no clip, no noise": UpdateConfig(clip=1000, noise=0, budget_bytes=1 << 24),
    "largest blocks, no clip, no noise": UpdateConfig(clip=1000, noise=0),
    "largest blocks, clip 1, no noise": UpdateConfig(clip=1, noise=0),
    "noise 0.001": UpdateConfig(clip=1, noise=0.001),
    "noise 0.002": UpdateConfig(clip=1, noise=0.002),
    "noise 0.004": UpdateConfig(clip=1, noise=0.004),
    "noise 0.008": UpdateConfig(clip=1, noise=0.008),
}
TIMES = (1.0, 2.0, 4.0, 8.0)
"""What a curious server could multiply an update by before it asks."""


def exposed(swarm: Swarm, chat: str) -> dict[str, Any]:
    """For a log of the sentences alone, and for one that has them among the lines of a chat."""
    template, rows = swarm.model.template, []
    lines = [template.user_turn(sentence).rstrip("\n") for sentence in SENTENCES]
    said = [line[len("User: ") :] for line in chat.splitlines() if line.startswith("User: ")]
    for name, between in (("the sentences alone", []), (f"and {len(said)} turns of a chat", said)):
        change = _told(swarm, between)
        for way, config in WAYS.items():
            sent = _sent(swarm, change, config)
            found = [_completed(swarm, sent, times, lines) for times in TIMES[: len(TIMES) if config else 1]]
            row = {"log": name, "way": way, "sentences": len(lines)}
            row |= {"completed": [part.completed for part in found], "bits": [round(part.bits, 1) for part in found]}
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
    return {"rows": rows, "times": TIMES, "of_base": vars(_completed(swarm, swarm.nothing(), 1.0, lines))}


def _told(swarm: Swarm, between: list[str]) -> Weights:
    """The change of a profile to which each sentence was told, in another turn each time, and which consolidated."""
    turns = [sentence for _ in range(TOLD) for sentence in SENTENCES]
    places = np.linspace(0, len(between), len(turns) + 1).astype(int)
    with tempfile.TemporaryDirectory(prefix="edgelm-") as folder:
        options = EngineOptions(str(swarm.model.folder), "swarm", profiles=Path(folder), bank=False)
        with Engine(options, writable=True) as engine:
            adaptation, conversation = engine.adaptation, 0
            for turn, (start, end) in zip(turns, pairwise(places), strict=True):
                for text in (turn, *between[start:end]):
                    adaptation.learn(adaptation.tell(CHAT, text, conversation=conversation))
            adaptation.consolidate()
            return engine.learned_change()


def _sent(swarm: Swarm, change: Weights, config: UpdateConfig | None) -> Weights:
    if config is None:
        return dense(change, swarm.model.config)
    rng = np.random.default_rng(1)
    # The server's limit is that of a device without a clip: what is measured is what was sent.
    return incoming(outgoing(change, swarm.model, config, rng), swarm.model, replace(config, clip=1000))


def _completed(swarm: Swarm, sent: Weights, times: float, lines: list[str]) -> exposure.Exposure:
    model = hub.load(str(swarm.model.folder))
    layer = shared_layer({name: np.float32(times) * array for name, array in sent.items()}, model)
    model.set_layers([Layer("swarm", "", layer)] if layer else [])
    return exposure.measure(open_session(model, fixed=True), model.tokenizer, lines)
