"""The likeliest of given continuations or answers."""

from __future__ import annotations

from collections.abc import Sequence

from edgelm.errors import InputError
from edgelm.measure.score import rank_continuations
from edgelm.runtime import Engine


def choose(engine: Engine, prompt: str, candidates: Sequence[str], *, as_reply: bool) -> list[tuple[str, float]]:
    """The candidates and their total log-probabilities in nats after ``prompt``, best first.

    ``as_reply``: the prompt is a turn of the person, the candidates are answers.

    Raises
    ------
    InputError
        A candidate is empty.
    """
    if not candidates or not all(candidate.strip() for candidate in candidates):
        raise InputError("a candidate is empty; give each some text")
    if as_reply:
        template = engine.template
        asked = template.user_turn(prompt) + template.reply_prompt()
        before = engine.reminder(asked) + asked
        texts = [template.answer(template.clean(text)) for text in candidates]
    else:
        before = prompt.rstrip()
        # A word begins with its space: "the" + "cat" and "the " + "cat" mean the same.
        spaced = bool(before) and (prompt != before or prompt[-1:].isalnum())
        texts = [f" {text.lstrip()}" if spaced and text[:1].isalnum() else text for text in candidates]
    ids = engine.template.document(engine.tokenizer.encode(before))
    names = dict(zip(texts, candidates, strict=True))
    ranking = rank_continuations(
        engine.new_session(), engine.tokenizer, ids, texts, engine.adaptation.memory, as_reply=as_reply
    )
    return [(names[text], value) for text, value in ranking]
