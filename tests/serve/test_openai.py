"""OpenAI's own client, and the requests of programs that speak its language."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from edgelm.log.entry import CHAT
from tests.serve.conftest import Running, Start

openai = pytest.importorskip("openai")
ASKED = [{"role": "user", "content": "Hello, who are you?"}]


@pytest.fixture
def client(start: Start) -> Iterator[Any]:
    """A client of a server that learns where it is asked to."""
    running = start()
    found = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
    found.running = running
    yield found
    found.close()


def test_the_model_is_listed(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
        client.models.retrieve("gpt")


def test_a_chat(client: Any) -> None:
    answer = client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=5, seed=3)
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens <= 5
    again = client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=5, seed=3)
    assert again.choices[0].message.content == choice.message.content


def test_a_stream_says_the_same(client: Any) -> None:
    options = {"model": "tiny", "messages": ASKED, "max_tokens": 6, "seed": 5}
    whole = client.chat.completions.create(**options)
    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **options))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_the_answer(client: Any, stream: bool) -> None:
    found = client.chat.completions.create(
        model="tiny", messages=ASKED, max_tokens=6, logprobs=True, top_logprobs=3, stream=stream
    )
    if stream:
        chunks = [chunk.choices[0] for chunk in found]
        text = "".join(c.delta.content or "" for c in chunks)
        tokens = [token for c in chunks if c.logprobs for token in c.logprobs.content]
    else:
        text, tokens = found.choices[0].message.content, found.choices[0].logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == text
    for token in tokens:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        assert [t.logprob for t in token.top_logprobs] == sorted((t.logprob for t in token.top_logprobs), reverse=True)
        assert token.logprob <= token.top_logprobs[0].logprob


def test_a_conversation_goes_on_and_is_not_read_again(client: Any) -> None:
    first = client.chat.completions.create(model="tiny", messages=ASKED)
    said = [*ASKED, {"role": "assistant", "content": first.choices[0].message.content}]
    second = client.chat.completions.create(model="tiny", messages=[*said, {"role": "user", "content": "And then?"}])
    assert second.edgelm["conversation"] == first.edgelm["conversation"]
    said += [
        {"role": "user", "content": "And then?"},
        {"role": "assistant", "content": second.choices[0].message.content},
    ]
    third = client.chat.completions.create(model="tiny", messages=[*said, {"role": "user", "content": "Go on."}])
    known = third.usage.prompt_tokens_details.cached_tokens
    assert known > second.usage.prompt_tokens_details.cached_tokens
    other = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "system", "content": "Be brief."}, *said, {"role": "user", "content": "Go on."}],
    )
    assert other.edgelm["conversation"] != first.edgelm["conversation"]
    assert other.usage.prompt_tokens_details.cached_tokens == 0


def test_the_state_that_was_kept_answers_as_one_that_read_everything(client: Any) -> None:
    def answers(*, whole: bool) -> str:
        said: list[dict[str, str]] = []
        for text in ("The ferry leaves at seven.", "There is fog.", "And then?"):
            said.append({"role": "user", "content": text})
            asked = said if whole else said[-1:]
            found = client.chat.completions.create(
                model="tiny", messages=asked, seed=1, temperature=0, max_tokens=6, user="" if whole else "ann"
            )
            said.append({"role": "assistant", "content": found.choices[0].message.content})
        return said[-1]["content"]

    assert answers(whole=True) == answers(whole=False)


def test_users_are_kept_apart(client: Any) -> None:
    def say(text: str, user: str) -> Any:
        messages = [{"role": "user", "content": text}]
        return client.chat.completions.create(model="tiny", messages=messages, user=user)

    ann, bob = say("I am Ann.", "ann"), say("I am Bob.", "bob")
    assert ann.edgelm["conversation"] != bob.edgelm["conversation"]
    assert say("And you?", "ann").edgelm["conversation"] == ann.edgelm["conversation"]
    turns = client.running.get(f"/edgelm/v1/conversations/{ann.edgelm['conversation']}")["turns"]
    assert [turn["text"] for turn in turns] == ["I am Ann.", "And you?"]


def test_nothing_is_learned_unless_it_is_asked_for(client: Any) -> None:
    def say(**fields: Any) -> list[int]:
        return client.chat.completions.create(model="tiny", messages=ASKED, **fields).edgelm["entries"]

    assert say() == []
    assert say(extra_body={"learn": False}) == []
    assert client.running.get("/edgelm/v1/log")["entries"] == []
    assert say(extra_body={"learn": True}) == [1]
    (entry,) = client.running.get("/edgelm/v1/log")["entries"]
    assert (entry["kind"], entry["text"]) == (CHAT, ASKED[0]["content"])


def test_a_server_that_learns_does_so_unless_a_request_says_no(start: Start) -> None:
    running = start(learn=True)
    asked = {"messages": ASKED}
    assert running.post("/v1/chat/completions", asked)["edgelm"]["entries"] == [1]
    assert running.post("/v1/chat/completions", asked | {"learn": False})["edgelm"]["entries"] == []


def test_a_server_that_must_not_learn_says_so(start: Start) -> None:
    running = start(may_learn=False)
    status, found = running.ask("POST", "/v1/chat/completions", {"messages": ASKED, "learn": True})
    assert (status, found["error"]["code"]) == (403, "no_learning")
    assert running.post("/v1/chat/completions", {"messages": ASKED})["choices"]


def test_secrets_are_not_learned(start: Start) -> None:
    running = start(learn=True)
    found = running.post(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": "my password is hunter2!!"}]}
    )
    assert found["edgelm"]["secrets_skipped"] == 1
    assert running.get("/edgelm/v1/log")["entries"] == []


def test_an_answer_ends_at_a_stop_string_and_after_max_tokens(start: Start) -> None:
    running = start(bank=False)
    asked: dict[str, Any] = {"messages": ASKED, "seed": 2, "max_tokens": 40, "temperature": 0}
    text = running.post("/v1/chat/completions", asked)["choices"][0]["message"]["content"]
    middle = text[len(text) // 2 : len(text) // 2 + 2]
    cut = running.post("/v1/chat/completions", asked | {"stop": [middle]})["choices"][0]
    assert cut["message"]["content"] == text[: text.index(middle)].strip()
    assert cut["finish_reason"] == "stop"
    short = running.post("/v1/chat/completions", asked | {"max_completion_tokens": 3})
    assert short["choices"][0]["finish_reason"] == "length"
    assert short["usage"]["completion_tokens"] <= 3


def test_a_given_answer_is_cut_too(start: Start) -> None:
    """Those of the bank and those from what was told are whole sentences, and must end where a client says."""
    running = start(learn=True)
    told = [{"role": "user", "content": "My sister lives in Bremen."}]
    running.post("/v1/chat/completions", {"messages": told, "user": "ann"})
    asked = {"messages": [{"role": "user", "content": "Where does my sister live?"}], "max_tokens": 60}
    whole = running.post("/v1/chat/completions", asked)
    assert whole["edgelm"]["source"] == "told"
    assert whole["choices"][0]["message"]["content"] == "Your sister lives in Bremen."
    short = running.post("/v1/chat/completions", asked | {"max_tokens": 3})["choices"][0]
    assert short["finish_reason"] == "length"
    assert "Your sister lives in Bremen.".startswith(short["message"]["content"])
    cut = running.post("/v1/chat/completions", asked | {"stop": "lives"})["choices"][0]
    assert (cut["message"]["content"], cut["finish_reason"]) == ("Your sister", "stop")


def test_there_are_no_embeddings(client: Any) -> None:
    with pytest.raises(openai.NotFoundError, match="no embeddings here"):
        client.embeddings.create(model="tiny", input="The ferry")


def test_a_text_goes_on(client: Any) -> None:
    options = {"model": "tiny", "prompt": "The ferry", "max_tokens": 6, "seed": 4}
    whole = client.completions.create(logprobs=2, **options)
    choice = whole.choices[0]
    # Bytes that are no whole character show as one mark a token there, and one a character in the text.
    assert "".join(choice.logprobs.tokens).replace("\ufffd", "") == choice.text.replace("\ufffd", "")
    assert len(choice.logprobs.top_logprobs) == len(choice.logprobs.tokens) == whole.usage.completion_tokens
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(stream=True, **options))
    assert streamed == choice.text
    assert client.completions.create(echo=True, **options).choices[0].text == "The ferry" + choice.text


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "assistant", "content": "Hello"}]}, 400, "messages"),
        ({"messages": [{"role": "wizard", "content": "Hello"}]}, 400, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "a " * 10_001}]}, 400, None),
        ({"n": 2}, 400, "n"),
        ({"temperature": 3}, 400, "temperature"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"stop": ["a"] * 5}, 400, "stop"),
        ({"top_logprobs": 2}, 400, "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format"),
        ({"model": "gpt-4"}, 404, "model"),
    ],
)
def test_what_cannot_be_answered(start: Start, change: dict[str, Any], status: int, param: str | None) -> None:
    found = start().ask("POST", "/v1/chat/completions", {"messages": ASKED} | change)
    assert found[0] == status
    error = found[1]["error"]
    assert error["param"] == param
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]


def test_home_assistants_agent(start: Start) -> None:
    """What its agent for servers like OpenAI's sends: a probe of three tokens, then chats with tools, streamed."""
    running = start(bank=False)
    assert running.get("/v1/models")["data"][0]["id"] == "tiny"
    probe = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    assert running.post("/v1/chat/completions", probe)["usage"]["completion_tokens"] <= 3
    tool = {
        "type": "function",
        "function": {
            "name": "HassTurnOn",
            "parameters": {"type": "object", "properties": {"name": {"type": "string"}}},
        },
    }
    said = [{"role": "system", "content": "You are a voice assistant for Home Assistant."}]
    for text in ("Turn on the light.", "Thank you."):
        said.append({"role": "user", "content": text})
        body = {
            "model": "tiny", "messages": said, "tools": [tool], "tool_choice": "auto", "stream": True, "user": "01HAJ",
            "max_tokens": 150, "top_p": 1.0, "temperature": 1.0, "parallel_tool_calls": False,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        lines = [line for line in running.post("/v1/chat/completions", body).split("\n\n") if line]
        assert lines[-1] == "data: [DONE]"
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
        reply = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
        assert reply
        said.append({"role": "assistant", "content": reply})
    assert chunks[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


def test_whoever_leaves_costs_no_more_than_a_token(start: Start) -> None:
    running = start(bank=False)
    body = {"prompt": "The ferry", "max_tokens": 4096, "stream": True}
    for _ in range(8):
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        connection.getresponse().read(10)
        connection.close()
    assert _answers(running)


def _answers(running: Running) -> bool:
    return bool(running.post("/v1/chat/completions", {"messages": ASKED})["choices"])
