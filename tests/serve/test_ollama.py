"""Ollama's own client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from edgelm import __version__
from tests.serve.conftest import Start

ollama = pytest.importorskip("ollama")
ASKED = [{"role": "user", "content": "Hello, who are you?"}]


@pytest.fixture
def client(start: Start) -> Iterator[Any]:
    """A client of a server that answers by the model alone."""
    found = ollama.Client(host=start(bank=False).url)
    yield found
    found._client.close()


def test_the_model_is_listed_and_shown(client: Any) -> None:
    (model,) = client.list().models
    assert model.model == "tiny:latest"
    assert model.size > 0
    shown = client.show("tiny")
    assert "{{ .Prompt }}" in shown.template
    assert shown.modelinfo["general.parameter_count"] > 0
    assert client.ps().models[0].model == "tiny:latest"
    with pytest.raises(ollama.ResponseError, match="there is no model 'llama3'"):
        client.show("llama3")


def test_a_chat_whole_and_in_lines(client: Any) -> None:
    options = {"seed": 3, "num_predict": 6, "temperature": 0.7, "top_p": 0.9, "num_ctx": 2048}
    whole = client.chat(model="tiny", messages=ASKED, options=options)
    assert whole.done
    assert whole.done_reason in ("stop", "length")
    assert 0 < whole.eval_count <= 6
    lines = list(client.chat(model="tiny:latest", messages=ASKED, options=options, stream=True, keep_alive="5m"))
    assert "".join(line.message.content for line in lines) == whole.message.content
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]


def test_a_text_and_its_context(client: Any) -> None:
    first = client.generate(model="tiny", prompt="I like tea.", options={"num_predict": 4})
    second = client.generate(model="tiny", prompt="And you?", context=first.context, options={"num_predict": 4})
    assert second.context == first.context
    assert second.prompt_eval_count < 40
    alone = client.generate(model="tiny", prompt="And you?", context=[1, 2, 3], options={"num_predict": 4})
    assert alone.context != first.context, "a context that is not kept any more begins anew"
    pieces = list(
        client.generate(model="tiny", prompt="I like tea.", stream=True, options={"num_predict": 4, "seed": 1})
    )
    assert pieces[-1].done


def test_a_model_is_loaded_by_asking_for_nothing(client: Any) -> None:
    assert client.generate(model="tiny", prompt="").done_reason == "load"
    assert client.chat(model="tiny", messages=[]).done_reason == "load"


def test_errors_are_as_its_clients_expect_them(start: Start) -> None:
    running = start()
    assert running.get("/api/version") == {"version": __version__}
    for body in ({"model": "other", "messages": ASKED}, {"messages": ASKED}, {"model": "tiny", "messages": [{}]}):
        status, found = running.ask("POST", "/api/chat", body)
        assert status in (400, 404)
        assert isinstance(found["error"], str)
    assert running.ask("DELETE", "/api/chat")[0] == 405
    assert running.ask("GET", "/api/nothing")[0] == 404
    assert running.ask("POST", "/api/chat", b"{}", Content_Type="image/png")[0] == 415
    assert running.ask("POST", "/api/chat", b"[" * 100_000)[0] == 400
