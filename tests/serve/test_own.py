"""What no other server has: the log, forgetting, why, and what a turn taught."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from edgelm.runtime import Engine, EngineOptions
from edgelm.serve.talks import KEPT_BYTES, MOST, Asked, Talk, Talks
from tests.serve.conftest import HOST, Running, Start


@pytest.fixture
def running(start: Start) -> Running:
    """A server that learns."""
    return start(learn=True)


def _texts(running: Running) -> list[str]:
    return [entry["text"] for entry in running.get("/edgelm/v1/log")["entries"] if entry["text"]]


def test_a_turn_and_what_it_taught(running: Running) -> None:
    events = running.turn("The ferry leaves at seven in the morning.", details=True)
    assert list(events) == ["words", "piece", "answer", "awake", "learned"]
    (answer,), (learned,), (awake,) = events["answer"], events["learned"], events["awake"]
    assert answer["reply"] == "".join(piece["text"] for piece in events["piece"])
    assert answer["entries"] == [1]
    before, after = events["words"][0]["words"], learned["words"]
    assert "".join(word["text"] for word in before).strip() == "The ferry leaves at seven in the morning."
    assert [word["text"] for word in after] == [word["text"] for word in before]
    assert sum(word["bits"] for word in after) < sum(word["bits"] for word in before)
    assert learned["bits_gained"] > 0
    assert awake["layers"] == 2
    assert awake["tokens"]
    assert all(len(blocks) <= 2 and max(blocks, default=0) < 4 for token in awake["tokens"] for blocks in token)
    assert running.get("/edgelm/v1/status")["gains"] == [round(learned["bits_gained"], 2)]


def test_a_conversation_goes_on_by_its_id(running: Running) -> None:
    first = running.turn("Hello")["answer"][0]
    second = running.turn("And then?", conversation=first["conversation"])["answer"][0]
    assert second["conversation"] == first["conversation"]
    turns = running.get(f"/edgelm/v1/conversations/{first['conversation']}")["turns"]
    assert [turn["text"] for turn in turns] == ["Hello", "And then?"]
    status, found = running.ask("POST", "/edgelm/v1/chat", {"text": "Hello", "conversation": "gone"})
    assert (status, found["error"]["code"]) == (404, "no_conversation")


def test_what_is_forgotten_is_gone_everywhere(running: Running, tiny_model: Path) -> None:
    clean = _digest_after(running, [])
    one = running.turn("My cat is called Whiskers.")["answer"][0]
    other = running.turn("Do you know Whiskers?")["answer"][0]
    running.turn("The ferry waits.", conversation=other["conversation"])
    assert running.post("/edgelm/v1/forget", {"match": "whiskers"}) == {"removed": 2, "entries": [1, 2]}
    assert _texts(running) == ["The ferry waits."]
    for talk in (one, other):
        said = running.get(f"/edgelm/v1/conversations/{talk['conversation']}")
        assert "whiskers" not in json.dumps(said).lower()
    assert running.post("/edgelm/v1/forget", {"ids": [3]})["removed"] == 1
    assert _texts(running) == []
    assert _digest_after(running, []) == clean


def _digest_after(running: Running, texts: list[str]) -> Any:
    """What the model says next, which is the same where the same was learned."""
    return running.post("/v1/completions", {"prompt": "My cat is", "logprobs": 3, "temperature": 0, "max_tokens": 4})[
        "choices"
    ]


def test_forgetting_waits_for_nobody_and_needs_words(running: Running) -> None:
    for body in ({}, {"match": "  "}, {"ids": []}):
        assert running.ask("POST", "/edgelm/v1/forget", body)[0] == 400
    assert running.post("/edgelm/v1/forget", {"match": "nothing like it"}) == {"removed": 0, "entries": []}


def test_undo_good_fix_and_why(running: Running) -> None:
    talk = running.turn("What is the capital of France?")["answer"][0]["conversation"]
    place = f"/edgelm/v1/conversations/{talk}"
    assert running.post(f"{place}/fix", {"text": "Paris, I think."}) == {"learned": "Paris, I think."}
    again = running.turn("What is the capital of France?", max_tokens=20)["answer"][0]
    assert again["reply"] == "Paris, I think."
    assert running.post(f"{place}/good") == {"learned": "Paris, I think."}
    found = running.get(f"{place}/why")
    assert found["reply"] == "Paris, I think."
    assert any(item["text"] == "Paris, I think." for item in found["influences"])
    removed = running.post(f"{place}/undo")
    assert removed["removed"] == 3
    assert running.get(place)["turns"] == []
    assert "Paris, I think." not in _texts(running)
    assert running.ask("POST", f"{place}/undo")[0] == 400
    assert running.ask("POST", "/edgelm/v1/conversations/gone/undo")[0] == 404


def test_a_server_that_must_not_learn_changes_nothing(start: Start) -> None:
    running = start(may_learn=False)
    talk = running.turn("Hello")["answer"][0]["conversation"]
    for path, body in (
        ("/edgelm/v1/forget", {"match": "a"}),
        (f"/edgelm/v1/conversations/{talk}/undo", {}),
        (f"/edgelm/v1/conversations/{talk}/good", {}),
        (f"/edgelm/v1/conversations/{talk}/fix", {"text": "b"}),
    ):
        assert running.ask("POST", path, body)[0] == 403, path


def test_events_tell_what_learning_does(running: Running) -> None:
    connection = http.client.HTTPConnection(HOST, running.port, timeout=30)
    connection.request("GET", "/edgelm/v1/events")
    response = connection.getresponse()
    assert response.getheader("content-type") == "text/event-stream"
    assert response.readline().startswith(b":")
    running.turn("The ferry leaves at seven in the morning.")
    seen = []
    while not seen or seen[-1] != b"event: segment_learned":
        seen.append(response.readline().strip())
    data = json.loads(response.readline().removeprefix(b"data: "))
    assert data["tokens"] > 0
    connection.close()


def test_words_that_come_next_and_the_likeliest_of_several(running: Running) -> None:
    words = running.post("/edgelm/v1/suggest", {"text": "The ferry", "k": 3})["suggestions"]
    assert len(words) <= 3
    assert [row["probability"] for row in words] == sorted((row["probability"] for row in words), reverse=True)
    begun = running.post("/edgelm/v1/suggest", {"text": "The fer", "k": 3, "begun": True})["suggestions"]
    assert all(row["word"].startswith("fer") for row in begun)
    filled = running.post("/edgelm/v1/fill", {"text": "The [...] waits.", "k": 2})
    assert filled["text"] == f"The {filled['fills'][0]['text']} waits."
    assert len(filled["fills"]) == 2
    assert running.ask("POST", "/edgelm/v1/fill", {"text": "no blank"})[0] == 400
    ranking = running.post("/edgelm/v1/choose", {"prompt": "The ferry", "candidates": ["waits", "sings", "waits here"]})
    assert {row["text"] for row in ranking["ranking"]} == {"waits", "sings", "waits here"}
    values = [row["log_probability"] for row in ranking["ranking"]]
    assert values == sorted(values, reverse=True)


def test_the_log_in_parts(running: Running) -> None:
    for i in range(5):
        running.turn(f"Remark number {i}.")
    page = running.get("/edgelm/v1/log?count=2")
    assert ([e["id"] for e in page["entries"]], page["more"]) == ([4, 5], True)
    rest = running.get("/edgelm/v1/log?count=10&before=4")
    assert ([e["id"] for e in rest["entries"]], rest["more"]) == ([1, 2, 3], False)
    for query in ("count=0", "count=x", "before=-1", "count=²"):
        assert running.ask("GET", "/edgelm/v1/log?" + quote(query, safe="="))[0] == 400


def test_what_was_learned_over_the_api_is_kept(start: Start, tiny_model: Path, home: Path) -> None:
    running = start(learn=True)
    running.turn("The baker is always the first on board.")
    status = running.get("/edgelm/v1/status")
    assert (status["model"], status["entries"], status["learns"], status["may_learn"]) == ("tiny", 1, True, True)
    # Another process may read while the server holds the profile.
    with Engine(EngineOptions(str(tiny_model))) as engine:
        assert [entry.text for entry in engine.adaptation.entries] == ["The baker is always the first on board."]


def test_a_profile_that_another_process_learns_with(start: Start, tiny_model: Path, home: Path) -> None:
    from edgelm.errors import ProfileError

    with Engine(EngineOptions(str(tiny_model)), writable=True), pytest.raises(ProfileError, match="another edgelm"):
        start(learn=True)


class _Said:
    """As much of a conversation as keeping it needs."""

    def __init__(self, *exchanges: tuple[str, str], system: str = "") -> None:
        self.exchanges, self.system = list(exchanges), system


def test_of_kept_conversations_the_one_used_longest_ago_goes() -> None:
    talks = Talks(KEPT_BYTES)
    kept = [Talk(_Said((str(i), "yes"))) for i in range(talks.most + 1)]  # type: ignore[arg-type]
    for talk in kept[:-1]:
        talks.keep(talk)
    assert talks.find(Asked("more", (("0", "yes"),))) is kept[0]
    talks.keep(kept[0])
    talks.keep(kept[-1])
    assert len(talks) == talks.most
    assert talks.find(Asked("more", (("1", "yes"),))) is None
    assert talks.find(Asked("more", (("0", "yes"),))) is kept[0]
    assert talks.find(Asked("more", (("0", "yes"),), system="Be brief.")) is None
    assert talks.find(Asked("more", (("0", "yes"),), user="ann")) is None
    assert Talks(1).most == MOST
