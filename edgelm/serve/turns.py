"""A turn over edgelm's own API: its answer, which blocks it woke, and what it taught."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from edgelm.errors import EdgelmError
from edgelm.measure.tokens import awake_blocks, score_tokens
from edgelm.serve.bodies import MAX_TURN, Count, Seed, Share, Temperature
from edgelm.serve.http import RequestError, Response, event
from edgelm.serve.openai import NOT_KEPT
from edgelm.serve.routes import Call, Primed, Route, error_object
from edgelm.serve.served import Served
from edgelm.serve.service import Answer, as_request_error
from edgelm.serve.talks import Asked

LN2 = math.log(2)
EVENTS = "text/event-stream"


class TurnRequest(msgspec.Struct, kw_only=True):
    """``POST /edgelm/v1/chat``; without ``conversation`` a new one begins.

    ``details``: which blocks woke, and what each word of the turn cost before and after it was learned.
    """

    text: Annotated[str, Meta(min_length=1, max_length=MAX_TURN)]
    conversation: Annotated[str, Meta(max_length=64)] = ""
    learn: bool | None = None
    details: bool = False
    temperature: Temperature | None = None
    top_p: Share | None = None
    max_tokens: Count | None = None
    seed: Seed | None = None


async def chat(call: Call) -> Response:
    """``POST /edgelm/v1/chat``: an answer as events ``words``, ``piece``, ``answer``, ``awake`` and ``learned``."""
    body: TurnRequest = call.body
    if not body.text.strip():
        raise RequestError(400, "text: some words are needed", "invalid_request", "text")
    given: dict[str, Any] = {
        "temperature": body.temperature, "top_p": body.top_p, "max_tokens": body.max_tokens,
    }  # fmt: skip
    sampling = replace(call.service.options.sampling, **{k: v for k, v in given.items() if v is not None})
    asked = Asked(body.text.strip(), (), "", sampling, body.seed, body.learn, conversation=body.conversation)
    return Response(200, await Primed(_Told(call, asked, details=body.details).events()).prime(), EVENTS, NOT_KEPT)


class _Told:
    """A turn, its answer, and what it taught, as events."""

    def __init__(self, call: Call, asked: Asked, *, details: bool) -> None:
        self._call, self._asked, self._details = call, asked, details

    async def events(self) -> AsyncGenerator[bytes, None]:
        """All events, in their order."""
        # The profile stays open until it is known what the turn taught.
        self._call.served.in_use += 1
        try:
            async with aclosing(self._all()) as parts:
                async for part in parts:
                    yield part
        finally:
            self._call.served.in_use -= 1

    async def _all(self) -> AsyncGenerator[bytes, None]:
        call, service, begun = self._call, self._call.service, False
        async with service.answer(call.served, self._asked) as answer:
            before: list[dict[str, Any]] = []
            if self._details:
                before = await service.run(call.served, lambda: surprise(call.served, self._asked.text))
                # Whoever is told its id may go on with it, whatever comes of this turn.
                call.served.talks.keep(answer.talk)
                yield event({"conversation": answer.talk.id, "words": before}, "words")
            try:
                async with aclosing(answer.pieces()) as pieces:
                    async for piece in pieces:
                        begun = True
                        yield event({"text": piece}, "piece")
            except EdgelmError as exc:
                if not begun and not self._details:
                    raise
                yield event(error_object(as_request_error(exc)), "error")
                return
            call.served.note_turn(answer.turn)
            yield event(self._about(answer), "answer")
            if self._details:
                yield event(await service.run(call.served, lambda: self._awake(answer)), "awake")
        # The conversation goes on while this waits.
        if (learning := answer.turn.learning) is not None:
            learned = await asyncio.shield(asyncio.wrap_future(learning))
            after = await service.run(call.served, lambda: surprise(call.served, self._asked.text)) if before else []
            fields = {"tokens": 0, "bits_before": 0.0, "bits_gained": 0.0} if learned is None else {
                "tokens": learned.tokens, "bits_before": learned.loss_before * learned.tokens / LN2,
                "bits_gained": learned.bits_gained,
            }  # fmt: skip
            call.served.gains.append(round(float(fields["bits_gained"]), 2))
            yield event(fields | {"words": after}, "learned")

    def _about(self, answer: Answer) -> dict[str, Any]:
        turn = answer.turn
        return {
            "conversation": answer.talk.id, "reply": turn.reply, "source": str(turn.source),
            "sources": answer.talk.conversation.sources(), "tokens": turn.tokens, "seconds": round(turn.seconds, 4),
            "prompt_tokens": turn.prompt_tokens, "known_tokens": turn.known_tokens, "entries": turn.entry_ids,
            "secrets_skipped": turn.secrets_skipped,
        }  # fmt: skip

    def _awake(self, answer: Answer) -> dict[str, Any]:
        """Which blocks wake for each token of the answer, and what each of them spells."""
        engine = self._call.served.engine
        before = answer.talk.conversation.before_last_answer()
        ids = engine.tokenizer.encode(engine.template.answer(answer.turn.reply))
        tokens = awake_blocks(engine.new_session(), before, ids, engine.config.max_awake)
        decoder = engine.tokenizer.stream()
        return {
            "layers": engine.config.n_layers, "blocks": engine.config.n_blocks, "tokens": tokens,
            "texts": [decoder.feed(token_id) for token_id in ids],
        }  # fmt: skip


def surprise(served: Served, text: str) -> list[dict[str, Any]]:
    """What each token of a turn costs, in bits, with what is known now: of the words alone, not of the label."""
    engine = served.engine
    turn = engine.template.user_turn(text)
    head = turn.partition(engine.template.clean(text))[0].rstrip(" ")
    before = engine.template.document(engine.tokenizer.encode(head))
    ids = engine.tokenizer.encode(turn[len(head) :].rstrip("\n"))
    scores = score_tokens(engine.new_session(), engine.tokenizer, before, ids, engine.new_mix())
    return [{"text": s.text, "bits": round(-s.log_probability / LN2, 2)} for s in scores]


ROUTES = [
    Route("POST", "/edgelm/v1/chat", chat, "A turn, its answer, and what it taught.", TurnRequest, streams=EVENTS),
]
