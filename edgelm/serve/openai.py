"""OpenAI's API, as far as a text model of this size has an answer to it: models, chat, completions."""

from __future__ import annotations

import secrets
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from edgelm.config import SampleConfig
from edgelm.engine.generate import Ended, Generation
from edgelm.errors import EdgelmError
from edgelm.measure.tokens import TokenScore, score_tokens
from edgelm.serve.bodies import (
    MAX_TURN,
    About,
    ChatMessage,
    ChatRequest,
    Choice,
    Completion,
    CompletionLogprobs,
    CompletionRequest,
    Message,
    ModelCard,
    ModelList,
    Sampled,
    TextChoice,
    TextCompletion,
    Usage,
)  # fmt: skip
from edgelm.serve.http import RequestError, Response, as_json, event
from edgelm.serve.routes import Call, Primed, Route, error_object
from edgelm.serve.served import Served
from edgelm.serve.service import Answer, as_request_error
from edgelm.serve.talks import Asked, Exchanges
from edgelm.text.stops import Stops


def sampling_of(defaults: SampleConfig, asked: Sampled, max_tokens: int | None) -> SampleConfig:
    """The sampling that a request asks for.

    Raises
    ------
    RequestError
        It wants more than one answer.
    """
    if asked.n not in (1, None):
        raise RequestError(400, f"n must be 1, not {asked.n}: there is one answer", "unsupported_value", "n")
    given: dict[str, Any] = {"temperature": asked.temperature, "top_p": asked.top_p, "max_tokens": max_tokens}
    stops = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    given = {name: value for name, value in given.items() if value is not None}
    return replace(defaults, stops=stops, **given)


def check_model(served: Served, name: str) -> str:
    """The name of the model, if ``name`` is one of its names.

    Raises
    ------
    RequestError
        It is another one's.
    """
    own = served.engine.model.name
    if name.partition(":")[0] not in ("", own, "edgelm"):
        message = f"there is no model {name[:80]!r} here, but {own!r}; begin the server with --model for another"
        raise RequestError(404, message, "model_not_found", "model")
    return own


def words_of(message: Message) -> str:
    """The text of a message.

    Raises
    ------
    RequestError
        A part of it is no text.
    """
    if not isinstance(message.content, list):
        return (message.content or "").strip()
    if other := [part.type for part in message.content if part.type not in ("text", "input_text")]:
        raise RequestError(400, f"this model reads text, not {other[0][:40]!r}", "unsupported_value", "messages")
    return "\n".join(part.text or "" for part in message.content).strip()


def turn_of(text: str) -> str:
    """A turn of the person, as it is.

    Raises
    ------
    RequestError
        It is too long.
    """
    if len(text) > MAX_TURN:
        raise RequestError(400, f"a turn has at most {MAX_TURN:,} characters, not {len(text):,}", "invalid_request")
    return text


def conversation_of(messages: list[Message]) -> tuple[str, Exchanges, str]:
    """The system's text, the turns before the last with their answers, and the last turn of the person.

    Messages of tools are left out: the model calls none.

    Raises
    ------
    RequestError
        The last message is not the person's, or empty.
    """
    system: list[str] = []
    turns: list[tuple[str, str]] = []
    for number, message in enumerate(messages):
        if message.role not in ("system", "developer", "user", "assistant", "tool", "function"):
            raise RequestError(
                400, f"role must be system, user or assistant, not {message.role[:40]!r}", "invalid_request",
                f"messages[{number}].role",
            )  # fmt: skip
        text = words_of(message)
        if message.role in ("system", "developer"):
            system.append(text)
        elif message.role == "user":
            turns.append((turn_of(text), ""))
        elif message.role == "assistant" and text:
            asked = turns.pop()[0] if turns and not turns[-1][1] else ""
            turns.append((asked, text))
    if not turns or turns[-1][1] or not turns[-1][0]:
        raise RequestError(400, "the last message must be the user's, with some text", "invalid_request", "messages")
    return "\n".join(system), tuple(turns[:-1]), turns[-1][0]


def finish_reason(ended: Ended | None) -> str:
    """Why an answer ended, as OpenAI has it."""
    return "length" if ended is Ended.LENGTH else "stop"


async def models(call: Call) -> Response:
    """``GET /v1/models``, and one of them."""
    model = call.served.engine.model
    card = ModelCard(model.name, "model", call.service.started, "edgelm")
    if call.parts:
        check_model(call.served, call.parts[0])
        return as_json(msgspec.to_builtins(card))
    return as_json(msgspec.to_builtins(ModelList("list", [card])))


async def chat(call: Call) -> Response:
    """``POST /v1/chat/completions``."""
    body: ChatRequest = call.body
    name = check_model(call.served, body.model)
    if body.response_format is not None and body.response_format.get("type") not in (None, "text"):
        raise RequestError(
            400, "response_format must be text: this model writes no JSON", "unsupported_value", "response_format"
        )
    if body.top_logprobs and not body.logprobs:
        raise RequestError(400, "top_logprobs needs logprobs: true", "invalid_request", "top_logprobs")
    system, history, text = conversation_of(body.messages)
    sampling = sampling_of(call.service.options.sampling, body, body.max_completion_tokens or body.max_tokens)
    asked = Asked(text, history, system, sampling, body.seed, body.learn, body.user or "")
    made = _Chat(call, name, body, asked)
    if body.stream:
        return Response(200, await Primed(made.events()).prime(), "text/event-stream", NOT_KEPT)
    return as_json(msgspec.to_builtins(await made.whole()))


NOT_KEPT = (("cache-control", "no-store"),)


class _Chat:
    """An answer to a chat, whole or in pieces."""

    def __init__(self, call: Call, model: str, body: ChatRequest, asked: Asked) -> None:
        self._call, self._body, self._asked = call, body, asked
        self._id, self._created, self._model = f"chatcmpl-{secrets.token_hex(12)}", call.service.now(), model

    def _completion(self, kind: str, choices: list[Choice], **rest: Any) -> Completion:
        return Completion(self._id, f"chat.{kind}", self._created, self._model, choices, **rest)

    async def whole(self) -> Completion:
        """The answer as one object."""
        async with self._call.service.answer(self._call.served, self._asked) as answer:
            text = "".join([piece async for piece in answer.pieces()])
            scores = await self._scores(answer, text)
            choice = Choice(0, finish_reason(answer.turn.ended), _logprobs(scores), ChatMessage("assistant", text))
            return self._completion("completion", [choice], usage=self._usage(answer), edgelm=about(answer))

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events."""
        wants_usage = self._body.stream_options is not None and self._body.stream_options.include_usage
        rest: dict[str, Any] = {"usage": None} if wants_usage else {}

        def chunk(delta: dict[str, Any], ended: str | None = None, scores: Any = None, **more: Any) -> bytes:
            choice = Choice(0, ended, scores, delta=delta)
            return event(msgspec.to_builtins(self._completion("completion.chunk", [choice], **(rest | more))))

        async with self._call.service.answer(self._call.served, self._asked) as answer:
            begun = False
            try:
                texts = []
                async with aclosing(answer.pieces()) as pieces:
                    async for piece in pieces:
                        if not begun:
                            yield chunk({"role": "assistant", "content": ""})
                        begun = True
                        texts.append(piece)
                        if not self._body.logprobs:
                            yield chunk({"content": piece})
                if not begun:
                    yield chunk({"role": "assistant", "content": ""})
                for score in await self._scores(answer, "".join(texts)) or []:
                    yield chunk({"content": score.text}, None, _logprobs([score]))
            except EdgelmError as exc:
                if not begun:
                    raise
                yield event(error_object(as_request_error(exc)))
                return
            yield chunk({}, finish_reason(answer.turn.ended), edgelm=about(answer))
            if wants_usage:
                last = self._completion("completion.chunk", [], usage=self._usage(answer))
                yield event(msgspec.to_builtins(last))
            yield event("[DONE]")

    def _usage(self, answer: Answer) -> Usage:
        turn = answer.turn
        n_tokens = turn.reply_tokens
        details = {"cached_tokens": turn.known_tokens}
        return Usage(turn.prompt_tokens, n_tokens, turn.prompt_tokens + n_tokens, details)

    async def _scores(self, answer: Answer, text: str) -> list[TokenScore] | None:
        """What the model gives the answer's tokens, wherever the answer came from."""
        if not self._body.logprobs:
            return None
        engine, top = self._call.served.engine, self._body.top_logprobs or 0

        def score() -> list[TokenScore]:
            before = answer.talk.conversation.before_last_answer()
            spaced = engine.template.answer(text).removesuffix(engine.template.turn_end)
            ids = engine.tokenizer.encode(spaced)
            mix = engine.new_mix(as_reply=True)
            found = score_tokens(engine.new_session(), engine.tokenizer, before, ids, mix, top)
            # An answer begins after the space that stands before it.
            return [s._replace(spelled=s.spelled.lstrip(), text=s.text.lstrip()) for s in found[:1]] + found[1:]

        return await self._call.service.run(self._call.served, score)


def about(answer: Answer) -> About:
    """What edgelm says of an answer."""
    turn = answer.turn
    return About(answer.talk.id, str(turn.source), turn.entry_ids, turn.secrets_skipped)


def _logprobs(scores: list[TokenScore] | None) -> dict[str, Any] | None:
    if scores is None:
        return None

    def token(spelled: bytes, value: float) -> dict[str, Any]:
        return {"token": spelled.decode("utf-8", "replace"), "logprob": value, "bytes": list(spelled)}

    rows = [token(s.spelled, s.log_probability) | {"top_logprobs": [token(*t) for t in s.top]} for s in scores]
    return {"content": rows, "refusal": None}


async def completions(call: Call) -> Response:
    """``POST /v1/completions``."""
    body: CompletionRequest = call.body
    made = _Continued(call, check_model(call.served, body.model), body)
    if body.stream:
        return Response(200, await Primed(made.events()).prime(), "text/event-stream", NOT_KEPT)
    return as_json(msgspec.to_builtins(await made.whole()))


class _Continued:
    """A text that goes on; nothing of it is learned, and no conversation is kept."""

    def __init__(self, call: Call, model: str, body: CompletionRequest) -> None:
        self._call, self._body, self._engine = call, body, call.served.engine
        self._prompt = body.prompt if isinstance(body.prompt, str) else body.prompt[0]
        self._sampling = sampling_of(call.service.options.sampling, body, body.max_tokens)
        self._id, self._created, self._model = f"cmpl-{secrets.token_hex(12)}", call.service.now(), model
        self._before = self._engine.template.document(self._engine.tokenizer.encode(self._prompt))
        self._ids: list[int] = []
        self._ended: Ended | None = None

    def _generate(self, gone: threading.Event) -> Generator[str, None, None]:
        """The text in pieces; in a thread, until the event says that nobody listens."""
        engine, body = self._engine, self._body
        session = engine.new_session()
        session.stopped = gone.is_set
        rng = engine.new_rng() if body.seed is None else np.random.default_rng(body.seed)
        # Stop strings end it; a label at the beginning of a line, which ends a turn of a conversation, does not.
        stops = Stops((), self._sampling.stops)
        decoder, mix = engine.tokenizer.stream(), engine.new_mix()
        generation = Generation(session, self._before, self._sampling, rng, mix, engine.template.document_id)
        if body.echo:
            yield self._prompt
        for token in generation:
            text = stops.feed(decoder.feed(token.id))
            if not stops.found:
                self._ids.append(token.id)
            yield text
            if stops.found:
                self._ended = Ended.STOP
                return
        self._ended = generation.ended
        yield stops.held

    def _completion(self, choices: list[TextChoice], **rest: Any) -> TextCompletion:
        return TextCompletion(self._id, "text_completion", self._created, self._model, choices, **rest)

    def _usage(self) -> Usage:
        n = len(self._ids)
        return Usage(len(self._before), n, len(self._before) + n, {"cached_tokens": 0})

    async def whole(self) -> TextCompletion:
        """The text as one object."""
        text = "".join([piece async for piece in self._call.service.stream(self._call.served, self._generate)])
        choice = TextChoice(0, finish_reason(self._ended), text, await self._logprobs())
        return self._completion([choice], usage=self._usage())

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The text as server-sent events; log-probabilities come with the last."""
        async for piece in self._call.service.stream(self._call.served, self._generate):
            if piece:
                yield event(msgspec.to_builtins(self._completion([TextChoice(0, None, piece)])))
        last = TextChoice(0, finish_reason(self._ended), "", await self._logprobs())
        yield event(msgspec.to_builtins(self._completion([last])))
        if self._body.stream_options is not None and self._body.stream_options.include_usage:
            yield event(msgspec.to_builtins(self._completion([], usage=self._usage())))
        yield event("[DONE]")

    async def _logprobs(self) -> CompletionLogprobs | None:
        if self._body.logprobs is None:
            return None
        engine, top = self._engine, self._body.logprobs

        def score() -> list[TokenScore]:
            return score_tokens(engine.new_session(), engine.tokenizer, self._before, self._ids, engine.new_mix(), top)

        scores = await self._call.service.run(self._call.served, score)
        texts = [s.spelled.decode("utf-8", "replace") for s in scores]
        offsets = [len(self._prompt) * bool(self._body.echo)]
        for text in texts[:-1]:
            offsets.append(offsets[-1] + len(text))
        likely = [{spelled.decode("utf-8", "replace"): value for spelled, value in s.top} for s in scores]
        return CompletionLogprobs(texts, [s.log_probability for s in scores], likely, offsets[: len(texts)])


async def embeddings(call: Call) -> Response:
    """``POST /v1/embeddings``: there are none."""
    raise RequestError(
        404, "there are no embeddings here: the word vectors of edgelm find too few sentences by their sense",
        "not_supported",
    )  # fmt: skip


ROUTES = [
    Route("GET", "/v1/models", models, "The model that is here.", answer=ModelList),
    Route("GET", "/v1/models/{model}", models, "The same by its name.", answer=ModelCard),
    Route(
        "POST", "/v1/chat/completions", chat, "An answer to a conversation.", ChatRequest, Completion,
        "text/event-stream",
    ),
    Route(
        "POST", "/v1/completions", completions, "A text goes on.", CompletionRequest, TextCompletion,
        "text/event-stream",
    ),
    Route("POST", "/v1/embeddings", embeddings, "There are none: 404."),
]  # fmt: skip
