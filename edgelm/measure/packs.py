"""What layers of knowledge do to texts: bits with them and without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgelm.engine.opening import open_session
from edgelm.measure.score import score_text
from edgelm.model import hub
from edgelm.model.layers import Layer


def bits_per_byte(
    folder: Path, layers: Sequence[Layer], texts: Sequence[str], on_tokens: Callable[[int], None] = lambda _: None
) -> list[float]:
    """Bits per byte of each text with the model of a folder and these layers, without any memory of words."""
    model = hub.load(str(folder))
    model.set_layers(layers)
    session = open_session(model, fixed=True)
    return [
        score_text(session, model.tokenizer, model.config, text, on_tokens=on_tokens).bits_per_byte for text in texts
    ]
