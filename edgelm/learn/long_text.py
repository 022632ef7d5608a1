"""A long text, learned piece by piece, so that it may be broken off and gone on with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from edgelm.interrupt import held_back
from edgelm.learn.adaptation import Adaptation
from edgelm.learn.worker import Worker
from edgelm.log.entry import TEXT
from edgelm.text.files import pieces
from edgelm.text.tokenizer import document_ids

SAVE_TOKENS = 32_768
"""How much a long adaptation learns between two checkpoints."""
LEAST_TOKENS = 256
"""So little is replayed at the next start rather than written to a checkpoint."""


def learn_text(adaptation: Adaptation, worker: Worker, text: str, on_tokens: Callable[[int], None]) -> int:
    """Learns a whole text, each piece an entry of the log; returns the tokens learned, and ends the worker.

    Interrupted (any exception from ``on_tokens``), the piece under way is learned to its end, and the same text goes on
    from there the next time.
    """
    profile, tokenizer = adaptation.profile, adaptation.model.tokenizer
    assert profile is not None
    sha256, learned = hashlib.sha256(text.encode()).hexdigest()[:16], 0
    known, conversation, done = _parse_progress(profile.progress)
    if known != sha256:
        conversation, done = profile.conversation(), 0

    def count(n_tokens: int) -> None:
        nonlocal learned
        learned += n_tokens

    try:
        saved = 0
        for number, piece in enumerate(pieces(text)):
            if number < done:
                on_tokens(len(tokenizer.encode_document_lines(piece)))
                continue
            progress, before = f"{sha256}:{conversation}:{number + 1}", learned
            with held_back():
                entry = adaptation.tell(TEXT, piece, conversation=conversation, progress=progress)
                job = worker.learn(entry, on_tokens=count)
            job.result()
            if learned - saved >= SAVE_TOKENS:
                worker.call(lambda _: adaptation.write_checkpoint()).result()
                saved = learned
            on_tokens(learned - before)
        profile.finish()
    finally:
        worker.close()
        adaptation.write_checkpoint(LEAST_TOKENS)
    return learned


def learn_unlogged(adaptation: Adaptation, text: str, on_tokens: Callable[[int], None]) -> int:
    """The weights alone learn a text: neither the log nor the fast memory, which keep the words."""
    replay, learned = adaptation.replay, 0
    for ids in document_ids(adaptation.model.tokenizer.encode_document_lines(text)):
        replay.learn_document(np.array(ids), lambda p: on_tokens(len(p)), keep_words=False)
        learned += len(ids) - 1
    adaptation.append_unlogged(f"{learned} tokens whose words were not kept")
    return learned


def _parse_progress(text: str) -> tuple[str, int, int]:
    sha256, _, rest = text.partition(":")
    conversation, _, done = rest.partition(":")
    return (sha256, int(conversation), int(done)) if conversation.isdigit() and done.isdigit() else ("", 0, 0)
