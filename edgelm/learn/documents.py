"""The token ids that entries of a log are learned as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgelm.log.entry import CHAT, FIX, PAIRED, Entry
from edgelm.text.template import USUAL, Template
from edgelm.text.tokenizer import Tokenizer, document_ids

if TYPE_CHECKING:
    # Kernels are loaded only by those who learn.
    from edgelm.memory.fast_memory import FastMemory


def remember(
    memory: FastMemory, entries: Sequence[Entry], befores: Sequence[str], tokenizer: Tokenizer,
    template: Template = USUAL,
) -> None:  # fmt: skip
    """Stores in the fast memory, in place, the words that ``Replay.apply`` would store of ``entries``.

    The model is not computed, and the gates stay as they are. ``befores`` are the words that each entry answers.
    """
    n_label = len(tokenizer.encode(template.user_prompt))
    for entry, before in zip(entries, befores, strict=True):
        if entry.kind == CHAT:
            said = tokenizer.encode(template.user_turn(entry.text))[n_label:]
            memory.rebuild([np.array(template.document(said))])
        elif entry.kind in PAIRED:
            ids = entry_ids(entry, before, tokenizer, template)
            memory.rebuild([ids])
            if entry.kind == FIX:
                memory.correct(ids)
        elif entry.text:
            remember_text(memory, entry.text, tokenizer)


def remember_text(memory: FastMemory, text: str, tokenizer: Tokenizer) -> None:
    """Stores a text in the fast memory, in place, as ``Replay.apply`` would store one that was adapted to."""
    memory.rebuild([np.array(ids) for ids in document_ids(tokenizer.encode_document_lines(text))])


def entry_ids(entry: Entry, before: str, tokenizer: Tokenizer, template: Template = USUAL) -> np.ndarray:
    """The ids [n] int64 that a turn of a chat, or an answer after the words ``before``, is learned as.

    The first is the end-of-document id.
    """
    if entry.kind == CHAT:
        text = template.user_turn(entry.text)
    else:
        text = (template.user_turn(before) if before else "") + template.assistant_turn(entry.text)
    return np.array(template.document(tokenizer.encode(text)))
