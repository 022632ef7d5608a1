"""What the fast memory puts before a question: the person's own sentences that answer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgelm.text.conversation import assistant_turn, user_turn
from edgelm.text.tokenizer import DOC_ID, Tokenizer

if TYPE_CHECKING:
    # Kernels are loaded only by those who learn.
    from edgelm.memory.fast_memory import FastMemory

REMEMBERED = "Thank you, I will remember that."
"""What the model is made to have answered to what it is reminded of."""


def reminder_text(memory: FastMemory, tokenizer: Tokenizer, asked: str, said: Sequence[str] = ()) -> str:
    """Sentences of the memory that answer ``asked``, as turns of a conversation; none of those in ``said``."""
    known = {" ".join(text.split()) for text in said}
    found = (" ".join(tokenizer.decode(ids).split()) for ids in memory.remind([DOC_ID, *tokenizer.encode(asked)]))
    return "".join(user_turn(text) + assistant_turn(REMEMBERED) for text in found if text and text not in known)
