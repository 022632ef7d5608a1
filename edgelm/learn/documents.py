"""The token ids that entries of a log are learned as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgelm.log.entry import CHAT, FIX, PAIRED, Entry
from edgelm.text.conversation import USER_LABEL, assistant_turn, user_turn
from edgelm.text.tokenizer import DOC_ID, Tokenizer, document_ids

if TYPE_CHECKING:
    # Kernels are loaded only by those who learn.
    from edgelm.memory.fast_memory import FastMemory


def remember(memory: FastMemory, entries: Sequence[Entry], befores: Sequence[str], tokenizer: Tokenizer) -> None:
    """Stores in the fast memory, in place, the words that ``Replay.apply`` would store of ``entries``.

    The model is not computed, and the gates stay as they are. ``befores`` are the words that each entry answers.
    """
    n_label = len(tokenizer.encode(USER_LABEL))
    for entry, before in zip(entries, befores, strict=True):
        if entry.kind == CHAT:
            memory.rebuild([np.array([DOC_ID, *tokenizer.encode(user_turn(entry.text))[n_label:]])])
        elif entry.kind in PAIRED:
            ids = entry_ids(entry, before, tokenizer)
            memory.rebuild([ids])
            if entry.kind == FIX:
                memory.correct(ids)
        elif entry.text:
            memory.rebuild([np.array(ids) for ids in document_ids(tokenizer.encode_document_lines(entry.text))])


def entry_ids(entry: Entry, before: str, tokenizer: Tokenizer) -> np.ndarray:
    """The ids [n] int64 that a turn of a chat, or an answer after the words ``before``, is learned as.

    The first is the end-of-document id.
    """
    if entry.kind == CHAT:
        text = user_turn(entry.text)
    else:
        text = (user_turn(before) if before else "") + assistant_turn(entry.text)
    return np.array([DOC_ID, *tokenizer.encode(text)])
