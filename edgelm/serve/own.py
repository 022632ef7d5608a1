"""edgelm's own API: what no other server has, since no other learns."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from edgelm import __version__
from edgelm.engine.fill import MAX_WORDS, Blank, fill_blank
from edgelm.engine.suggest import split_begun, suggest_words
from edgelm.learn.events import Event
from edgelm.measure.choosing import choose
from edgelm.serve.bodies import MAX_TURN
from edgelm.serve.http import RequestError, Response, as_json, event
from edgelm.serve.openai import NOT_KEPT
from edgelm.serve.routes import Call, Primed, Route
from edgelm.serve.talks import Talk

Result = TypeVar("Result")
LN2 = math.log(2)
BEAT_SECONDS = 15.0
"""After so long without an event a comment is sent, so that whoever has gone is noticed."""
MOST_ENTRIES = 500
EVENTS = "text/event-stream"
Short = Annotated[str, Meta(max_length=MAX_TURN)]
"""What is read in one go."""
Id = Annotated[int, Meta(ge=0, le=1 << 53)]


class ForgetRequest(msgspec.Struct):
    """``POST /edgelm/v1/forget``: entries by their ids, and those that hold ``match``, whatever its case."""

    ids: Annotated[list[Id], Meta(max_length=10_000)] = []
    match: Annotated[str, Meta(max_length=1000)] = ""


class FixRequest(msgspec.Struct):
    """What the last answer should have been."""

    text: Annotated[str, Meta(min_length=1, max_length=20_000)]


class SuggestRequest(msgspec.Struct):
    """``POST /edgelm/v1/suggest``: the next words after ``text``; ``begun``: words that begin with its last letters."""

    text: Short
    k: Annotated[int, Meta(ge=1, le=50)] = 5
    begun: bool = False


class FillRequest(msgspec.Struct):
    """``POST /edgelm/v1/fill``: what the blank of ``text``, written ``[...]``, may hold."""

    text: Short
    k: Annotated[int, Meta(ge=1, le=50)] = 5
    words: Annotated[int, Meta(ge=1, le=MAX_WORDS)] = MAX_WORDS


class ChooseRequest(msgspec.Struct):
    """``POST /edgelm/v1/choose``: the likeliest of the candidates."""

    prompt: Short
    candidates: Annotated[list[Short], Meta(min_length=1, max_length=200)]
    as_reply: bool = False


class Removed(msgspec.Struct):
    """What was forgotten."""

    removed: int
    entries: list[int]


async def status(call: Call) -> Response:
    """``GET /edgelm/v1/status``."""
    served, service = call.served, call.service
    engine, config = served.engine, served.engine.config
    worker = engine.__dict__.get("worker")
    check = served.last_check
    return as_json({
        "version": __version__, "model": engine.model.name, "parameters": engine.model.n_parameters,
        "engine": engine.choice.engine, "precision": engine.precision, "profile": served.profile,
        "learns": service.options.learn and service.options.may_learn, "may_learn": service.options.may_learn,
        "friend": service.options.friend is not None,
        "entries": len(engine.adaptation.entries), "profile_bytes": engine.profile.n_bytes if engine.profile else 0,
        "is_learning": bool(worker is not None and worker.is_busy),
        "is_hot": bool(worker is not None and worker.is_resting), "celsius": service.celsius(),
        "guardrail": None if check is None else asdict(check),
        "layers": config.n_layers, "blocks": config.n_blocks, "blocks_awake_at_most": config.max_awake,
        "state_bytes": engine.session.state_bytes, "conversations": len(served.talks),
        "resident_mb": round(service.resident_bytes() / 1e6, 1), "tokens_per_s": served.tokens_per_s,
        "gains": list(served.gains),
    })  # fmt: skip


async def log(call: Call) -> Response:
    """``GET /edgelm/v1/log``: the newest entries before ``before``, oldest first."""
    count = _number(call, "count", 100, MOST_ENTRIES)
    before = _number(call, "before", 1 << 53, 1 << 53)
    entries = [entry for entry in call.served.engine.adaptation.entries if entry.id < before]
    rows = [
        {
            "id": e.id,
            "time": e.time,
            "kind": e.kind,
            "text": e.text[:2000],
            "conversation": e.conversation,
            "note": e.note,
        }
        for e in entries[-count:]
    ]  # fmt: skip
    return as_json({"entries": rows, "more": len(entries) > count})


def _number(call: Call, name: str, default: int, most: int) -> int:
    text = call.request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 18 and 1 <= int(text) <= most):
        raise RequestError(400, f"{name} must be a number from 1 to {most}", "invalid_request", name)
    return int(text)


async def forget(call: Call) -> Response:
    """``POST /edgelm/v1/forget``."""
    body: ForgetRequest = call.body
    served = call.served
    served.may_change()
    wanted, ids = body.match.strip().casefold(), set(body.ids)
    if not ids and not wanted:
        raise RequestError(400, "say what to forget: ids of entries, or match", "invalid_request", "ids")

    def act() -> list[int]:
        entries = served.engine.adaptation.entries
        found = [e for e in entries if e.id in ids or (wanted and wanted in e.text.casefold())]
        return served.forget(found, [wanted] if wanted else [])

    async with served.changing():
        removed = await call.service.run(served, act)
    return as_json({"removed": len(removed), "entries": removed})


async def profiles(call: Call) -> Response:
    """``GET /edgelm/v1/profiles``: the one that the key belongs to."""
    served = call.served
    row = {"name": served.profile, "entries": len(served.engine.adaptation.entries)}
    return as_json({"profiles": [row | {"bytes": served.engine.profile.n_bytes if served.engine.profile else 0}]})


async def events(call: Call) -> Response:
    """``GET /edgelm/v1/events``: what learning does, as it happens."""

    async def parts() -> AsyncGenerator[bytes, None]:
        queue = call.service.listen(call.served)
        try:
            yield b": what learning does\n\n"
            while True:
                try:
                    async with asyncio.timeout(BEAT_SECONDS):
                        happened = await queue.get()
                except TimeoutError:
                    yield b": nothing new\n\n"
                    continue
                yield event(*described(happened))
        finally:
            call.service.leave(call.served, queue)

    return Response(200, await Primed(parts()).prime(), EVENTS, NOT_KEPT)


def described(happened: Event) -> tuple[dict[str, Any], str]:
    """An event as JSON, and its name: ``segment_learned``, ``guardrail_checked``, ``consolidated``, ``forgotten``."""
    kind = type(happened).__name__
    name = "".join("_" * (i > 0) + c.lower() if c.isupper() else c for i, c in enumerate(kind))
    fields = asdict(happened)
    if fields.get("excess") == float("inf"):
        fields["excess"] = None  # nothing was scored
    return fields, name


async def suggest(call: Call) -> Response:
    """``POST /edgelm/v1/suggest``."""
    body: SuggestRequest = call.body

    before, begins = split_begun(body.text) if body.begun else (body.text.rstrip(), " ")
    if not begins.strip():
        before, begins = body.text.rstrip(), " "

    def act() -> list[tuple[str, float]]:
        engine = call.served.engine
        ids = engine.template.document(engine.tokenizer.encode(before))
        return suggest_words(engine.new_session(), engine.tokenizer, ids, body.k, engine.new_mix, begins)

    found = await call.service.run(call.served, act)
    return as_json({"suggestions": [{"word": word, "probability": p} for word, p in found]})


async def fill(call: Call) -> Response:
    """``POST /edgelm/v1/fill``."""
    body: FillRequest = call.body
    blank = Blank.find(body.text)

    def act() -> list[tuple[str, float]]:
        engine = call.served.engine
        return fill_blank(
            engine.new_session(), engine.tokenizer, blank, body.k, engine.new_mix, body.words, engine.template
        )

    found = await call.service.run(call.served, act)
    rows = [{"text": text, "log_probability": value} for text, value in found]
    return as_json({"text": blank.filled(found[0][0]) if found else body.text, "fills": rows})


async def choice(call: Call) -> Response:
    """``POST /edgelm/v1/choose``."""
    body: ChooseRequest = call.body
    engine = call.served.engine
    found = await call.service.run(
        call.served, lambda: choose(engine, body.prompt, body.candidates, as_reply=body.as_reply)
    )
    return as_json({"ranking": [{"text": text, "log_probability": value} for text, value in found]})


async def conversation(call: Call) -> Response:
    """``GET /edgelm/v1/conversations/{conversation}``: what was said in it."""
    talk = _talk(call)
    return as_json(
        {"conversation": talk.id, "turns": [{"text": a, "reply": b} for a, b in talk.conversation.exchanges]}
    )


def _talk(call: Call) -> Talk:
    talk = call.served.talks.get(call.parts[0])
    if talk is None:
        raise RequestError(404, "that conversation is not kept any more", "no_conversation")
    return talk


async def _with_talk(call: Call, act: Callable[[Talk], Result], *, changes: bool = True) -> Result:
    """Does something in a thread with a conversation that nobody else uses meanwhile."""
    talk = _talk(call)
    if changes:
        call.served.may_change()
    async with call.served.answering(), talk.lock:
        talk.conversation.learn = changes or talk.conversation.learn
        return await call.service.run(call.served, lambda: act(talk))


async def why(call: Call) -> Response:
    """``GET /edgelm/v1/conversations/{conversation}/why``: which of the person's words moved the last answer."""

    def act(talk: Talk) -> dict[str, Any]:
        from edgelm.measure.influence import influences_on_reply

        chat = talk.conversation
        lines, (_, reply) = chat.sources(), chat.last_exchange()
        found = influences_on_reply(chat) if chat.engine.adaptation.entries else []
        rows = [
            {"id": one.entry.id, "text": one.entry.text[:200], "bits": one.bits, "words": one.bits_fast,
             "weights": one.bits_slow}
            for one in found if abs(one.bits) >= 0.05
        ]  # fmt: skip
        return {"reply": reply.strip(), "source": str(chat.turns[-1].source), "sources": lines, "influences": rows[:8]}

    return as_json(await _with_talk(call, act, changes=False))


async def undo(call: Call) -> Response:
    """``POST /edgelm/v1/conversations/{conversation}/undo``."""
    talk, served = _talk(call), call.served
    served.may_change()

    def act() -> list[int]:
        talk.conversation.learn = True
        removed = talk.conversation.undo()
        served.drop(removed, [])
        return removed

    async with served.changing():
        removed = await call.service.run(served, act)
    return as_json({"removed": len(removed), "entries": removed})


async def good(call: Call) -> Response:
    """``POST /edgelm/v1/conversations/{conversation}/good``."""

    def act(talk: Talk) -> dict[str, Any]:
        talk.conversation.approve().result()
        return {"learned": talk.conversation.exchanges[-1][1]}

    return as_json(await _with_talk(call, act))


async def fix(call: Call) -> Response:
    """``POST /edgelm/v1/conversations/{conversation}/fix``."""

    def act(talk: Talk) -> dict[str, Any]:
        talk.conversation.correct(call.body.text).result()
        return {"learned": talk.conversation.exchanges[-1][1]}

    return as_json(await _with_talk(call, act))


async def ask(call: Call) -> Response:
    """``POST /edgelm/v1/conversations/{conversation}/ask``."""

    def act(talk: Talk) -> dict[str, Any]:
        return {"reply": talk.conversation.ask()}  # learned, if the turn was

    return as_json(await _with_talk(call, act, changes=False))


_TALK = "/edgelm/v1/conversations/{conversation}"
_COUNT = {"type": "integer", "minimum": 1, "maximum": MOST_ENTRIES}
ROUTES = [
    Route("GET", "/edgelm/v1/status", status, "Model, profile, memory, speed, heat, guardrail."),
    Route(
        "GET", "/edgelm/v1/log", log, "Entries of the log.",
        query={"count": _COUNT, "before": {"type": "integer", "minimum": 1, "maximum": 1 << 53}},
    ),
    Route("POST", "/edgelm/v1/forget", forget, "Entries are forgotten.", ForgetRequest, Removed),
    Route("GET", "/edgelm/v1/profiles", profiles, "The profile that the key belongs to."),
    Route("GET", "/edgelm/v1/events", events, "What learning does, as it happens.", streams=EVENTS),
    Route("POST", "/edgelm/v1/suggest", suggest, "The likeliest next words.", SuggestRequest),
    Route("POST", "/edgelm/v1/fill", fill, "The likeliest fills of a blank.", FillRequest),
    Route("POST", "/edgelm/v1/choose", choice, "The likeliest of given continuations.", ChooseRequest),
    Route("GET", _TALK, conversation, "What was said in a conversation."),
    Route("GET", f"{_TALK}/why", why, "Which words of the person moved the last answer."),
    Route("POST", f"{_TALK}/undo", undo, "Takes the last turn back, and what was learned from it.", answer=Removed),
    Route("POST", f"{_TALK}/good", good, "The last answer is learned too."),
    Route("POST", f"{_TALK}/fix", fix, "What the last answer should have been is learned.", FixRequest),
    Route("POST", f"{_TALK}/ask", ask, "The friend is asked for the answer to the last turn."),
]  # fmt: skip
