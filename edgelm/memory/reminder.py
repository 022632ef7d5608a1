"""What the fast memory puts before a question: the person's own sentences that answer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgelm.text.template import USUAL, Template
from edgelm.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    # Kernels are loaded only by those who learn.
    from edgelm.memory.fast_memory import FastMemory

REMEMBERED = "Thank you, I will remember that."
"""What the model is made to have answered to what it is reminded of."""


def reminder_text(
    memory: FastMemory, tokenizer: Tokenizer, asked: str, said: Sequence[str] = (), template: Template = USUAL
) -> str:
    """Sentences of the memory that answer ``asked``, as turns of a conversation; none of those in ``said``."""
    known = {" ".join(text.split()) for text in said}
    asked_ids, thanks = template.document(tokenizer.encode(asked)), template.assistant_turn(REMEMBERED)
    found = (" ".join(tokenizer.decode(ids).split()) for ids in memory.remind(asked_ids))
    return "".join(template.user_turn(text) + thanks for text in found if text and text not in known)
