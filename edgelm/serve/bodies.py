"""What OpenAI's API takes and gives, as types: they check what comes, and describe it on the page of the interface."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from edgelm.config import MAX_STOP_CHARS

MAX_CHARS, MAX_TURN, MAX_TOKENS, MAX_MESSAGES, MOST_TOP = 200_000, 20_000, 4096, 2000, 20
"""Characters of a text and of a person's turn, tokens of an answer, messages of a request, likely tokens that are told,
at most."""
Text = Annotated[str, Meta(max_length=MAX_CHARS)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Share = Annotated[float, Meta(gt=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
Seed = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Stop = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARS)]
StopList = Annotated[list[Stop], Meta(max_length=4)]
Top = Annotated[int, Meta(ge=0, le=MOST_TOP)]


class Part(msgspec.Struct):
    """A part of a message; only those of text can be read."""

    type: str
    text: Text | None = None


class Message(msgspec.Struct):
    """A message of a conversation."""

    role: str
    content: Text | Annotated[list[Part], Meta(max_length=64)] | None = None


class StreamOptions(msgspec.Struct):
    """What comes with a stream."""

    include_usage: bool = False


class Sampled(msgspec.Struct, kw_only=True):
    """What chat and completions have in common. Fields that are not here are accepted and change nothing."""

    model: str = ""
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    max_tokens: Count | None = None
    seed: Seed | None = None
    stop: Stop | StopList | None = None
    n: int | None = 1
    user: Annotated[str, Meta(max_length=200)] | None = None


class ChatRequest(Sampled, kw_only=True):
    """``POST /v1/chat/completions``; ``learn`` is edgelm's own: whether the last turn is learned."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = False
    top_logprobs: Top | None = None
    response_format: dict[str, Any] | None = None
    learn: bool | None = None


class CompletionRequest(Sampled, kw_only=True):
    """``POST /v1/completions``: a text goes on."""

    prompt: Text | Annotated[list[Text], Meta(min_length=1, max_length=1)]
    logprobs: Top | None = None
    echo: bool | None = False


class CompletionLogprobs(msgspec.Struct):
    """Those of a text, as ``/v1/completions`` has them."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class ModelCard(msgspec.Struct):
    """A model as ``GET /v1/models`` has it."""

    id: str
    object: str
    created: int
    owned_by: str


class ModelList(msgspec.Struct):
    """``GET /v1/models``."""

    object: str
    data: list[ModelCard]


class ChatMessage(msgspec.Struct):
    """What was answered."""

    role: str
    content: str
    refusal: str | None = None


class Usage(msgspec.Struct):
    """Tokens; ``cached_tokens`` of the prompt were read by an earlier request, and not again."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]


class Choice(msgspec.Struct):
    """The one answer."""

    index: int
    finish_reason: str | None
    logprobs: dict[str, Any] | None = None
    message: ChatMessage | UnsetType = UNSET
    delta: dict[str, Any] | UnsetType = UNSET


class About(msgspec.Struct):
    """What edgelm says of an answer: its conversation, where it came from, what of the turn is in the log."""

    conversation: str
    source: str
    entries: list[int]
    secrets_skipped: int


class Completion(msgspec.Struct):
    """An answer, or a piece of one."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | UnsetType | None = UNSET
    edgelm: About | UnsetType = UNSET
    system_fingerprint: str | None = None


class TextChoice(msgspec.Struct):
    """The one text."""

    index: int
    finish_reason: str | None
    text: str
    logprobs: CompletionLogprobs | None = None


class TextCompletion(msgspec.Struct):
    """A text that went on, or a piece of it."""

    id: str
    object: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | UnsetType = UNSET
