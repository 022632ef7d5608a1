"""Ollama's API, as its clients use it: tags, version, show, chat, generate. Answers come a line each, as JSON."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from edgelm import __version__
from edgelm.engine.generate import Ended
from edgelm.errors import EdgelmError
from edgelm.serve.bodies import Message, Sampled, Text
from edgelm.serve.http import Response, as_json
from edgelm.serve.openai import NOT_KEPT, check_model, conversation_of, sampling_of, turn_of
from edgelm.serve.routes import Call, Primed, Route
from edgelm.serve.service import Answer, as_request_error
from edgelm.serve.talks import Asked

LINES = "application/x-ndjson"
Number = int | float | None


class OllamaOptions(msgspec.Struct):
    """What of Ollama's options has a meaning here; the others are accepted and change nothing."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    num_predict: Annotated[int, Meta(ge=-2, le=4096)] | None = None
    seed: int | None = None
    stop: Annotated[list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(max_length=4)] | None = None


class OllamaChat(msgspec.Struct, kw_only=True):
    """``POST /api/chat``; ``learn`` is edgelm's own."""

    model: str
    messages: Annotated[list[Message], Meta(max_length=2000)] = []
    stream: bool = True
    options: OllamaOptions | None = None
    learn: bool | None = None


class OllamaGenerate(msgspec.Struct, kw_only=True):
    """``POST /api/generate``: a turn; ``context`` is what the last answer gave, and goes on from there."""

    model: str
    prompt: Text = ""
    system: Text = ""
    stream: bool = True
    context: Annotated[list[int], Meta(max_length=4096)] | None = None
    options: OllamaOptions | None = None
    learn: bool | None = None


class OllamaShow(msgspec.Struct, kw_only=True):
    """``POST /api/show``."""

    model: str = ""
    name: str = ""


class OllamaLine(msgspec.Struct, omit_defaults=True, kw_only=True):
    """An answer, or a piece of one."""

    model: str
    created_at: str
    done: bool | None = None
    message: dict[str, str] | None = None
    response: str | None = None
    done_reason: str | None = None
    context: list[int] | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _details(call: Call) -> dict[str, Any]:
    model = call.served.engine.model
    size = f"{model.n_parameters / 1e6:.1f}M"
    return {
        "parent_model": "", "format": "safetensors", "family": "edgelm", "families": ["edgelm"],
        "parameter_size": size, "quantization_level": call.served.engine.precision.upper(),
    }  # fmt: skip


async def tags(call: Call) -> Response:
    """``GET /api/tags``."""
    model = call.served.engine.model
    n_bytes = sum(path.stat().st_size for path in model.folder.iterdir() if path.is_file())
    row = {
        "name": f"{model.name}:latest", "model": f"{model.name}:latest", "modified_at": _when(call.service.started),
        "size": n_bytes, "digest": model.sha256, "details": _details(call),
    }  # fmt: skip
    return as_json({"models": [row]})


async def version(call: Call) -> Response:
    """``GET /api/version``."""
    return as_json({"version": __version__})


async def show(call: Call) -> Response:
    """``POST /api/show``."""
    body: OllamaShow = call.body
    check_model(call.served, body.model or body.name)
    engine = call.served.engine
    template = engine.template
    info = {"general.architecture": "edgelm", "general.parameter_count": engine.model.n_parameters}
    return as_json({
        "modelfile": "", "parameters": "", "template": template.user_turn("{{ .Prompt }}") + template.reply_prompt(),
        "details": _details(call), "model_info": info, "capabilities": ["completion"],
        "modified_at": _when(call.service.started),
    })  # fmt: skip


async def running(call: Call) -> Response:
    """``GET /api/ps``."""
    model = call.served.engine.model
    row = {"name": f"{model.name}:latest", "model": f"{model.name}:latest", "digest": model.sha256, "size_vram": 0}
    return as_json({"models": [row | {"details": _details(call)}]})


async def chat(call: Call) -> Response:
    """``POST /api/chat``."""
    body: OllamaChat = call.body
    name = check_model(call.served, body.model)
    if not body.messages:  # so its clients ask for a model to be loaded
        done = OllamaLine(model=name, created_at=_when(call.service.now()), done=True, done_reason="load")
        done.message = {"role": "assistant", "content": ""}
        return as_json(msgspec.to_builtins(done))
    system, history, text = conversation_of(body.messages)
    asked = Asked(text, history, system, *_sampling(call, body.options), body.learn)
    return await _answer(_Lines(call, name, asked, as_chat=True), stream=body.stream)


async def generate(call: Call) -> Response:
    """``POST /api/generate``."""
    body: OllamaGenerate = call.body
    name = check_model(call.served, body.model)
    if not body.prompt.strip():
        done = OllamaLine(model=name, created_at=_when(call.service.now()), done=True, done_reason="load", response="")
        return as_json(msgspec.to_builtins(done))
    talk = bytes(i for i in body.context or () if 0 <= i < 128).decode("ascii")
    kept = talk if call.served.talks.get(talk) is not None else ""
    asked = Asked(
        turn_of(body.prompt.strip()), (), body.system, *_sampling(call, body.options), body.learn, conversation=kept
    )  # fmt: skip
    return await _answer(_Lines(call, name, asked, as_chat=False), stream=body.stream)


def _sampling(call: Call, options: OllamaOptions | None) -> tuple[Any, int | None]:
    """The sampling and the seed of a request."""
    given = options or OllamaOptions()
    count = given.num_predict if given.num_predict is not None and given.num_predict > 0 else None
    wanted = Sampled(temperature=given.temperature, top_p=given.top_p, stop=given.stop)
    seed = abs(given.seed) if given.seed is not None else None
    return sampling_of(call.service.options.sampling, wanted, count), seed


async def _answer(lines: _Lines, *, stream: bool) -> Response:
    if stream:
        return Response(200, await Primed(lines.parts()).prime(), LINES, NOT_KEPT)
    return as_json(msgspec.to_builtins(await lines.whole()))


class _Lines:
    """An answer in lines, or in one."""

    def __init__(self, call: Call, model: str, asked: Asked, *, as_chat: bool) -> None:
        self._call, self._model, self._asked, self._as_chat = call, model, asked, as_chat
        self._begun = time.perf_counter_ns()

    def _line(self, text: str, **rest: Any) -> OllamaLine:
        line = OllamaLine(model=self._model, created_at=_when(self._call.service.now()), **rest)
        if self._as_chat:
            line.message = {"role": "assistant", "content": text}
        else:
            line.response = text
        return line

    def _last(self, answer: Answer, text: str) -> OllamaLine:
        turn, total = answer.turn, time.perf_counter_ns() - self._begun
        spent = int(turn.seconds * 1e9)
        line = self._line(
            text, done=True, done_reason="length" if turn.ended is Ended.LENGTH else "stop", total_duration=total,
            load_duration=0, prompt_eval_count=turn.prompt_tokens - turn.known_tokens,
            prompt_eval_duration=total - spent,
            eval_count=turn.reply_tokens, eval_duration=spent,
        )  # fmt: skip
        if not self._as_chat:
            line.context = list(answer.talk.id.encode("ascii"))
        return line

    async def whole(self) -> OllamaLine:
        """The answer in one line."""
        async with self._call.service.answer(self._call.served, self._asked) as answer:
            return self._last(answer, "".join([piece async for piece in answer.pieces()]))

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """The answer in lines."""
        begun = False
        try:
            async with self._call.service.answer(self._call.served, self._asked) as answer:
                async with aclosing(answer.pieces()) as pieces:
                    async for piece in pieces:
                        begun = True
                        yield _as_line(self._line(piece, done=False))
                yield _as_line(self._last(answer, ""))
        except EdgelmError as exc:
            if not begun:
                raise
            yield msgspec.json.encode({"error": str(as_request_error(exc))}) + b"\n"


def _as_line(line: OllamaLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"


ROUTES = [
    Route("GET", "/api/tags", tags, "The model that is here."),
    Route("GET", "/api/ps", running, "The same: it is always loaded."),
    Route("GET", "/api/version", version, "The version of edgelm."),
    Route("POST", "/api/show", show, "What the model is.", OllamaShow),
    Route("POST", "/api/chat", chat, "An answer to a conversation.", OllamaChat, OllamaLine, LINES),
    Route("POST", "/api/generate", generate, "An answer to a turn.", OllamaGenerate, OllamaLine, LINES),
]
