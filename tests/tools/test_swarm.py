"""The measures of a swarm, on a tiny model: that they run, and that their figures are of what they say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from edgelm.measure.recall import ToldFact
from edgelm.model import hub
from edgelm.runtime import EngineOptions
from edgelm.swarm.aggregate import AggregateConfig
from edgelm.swarm.update import UpdateConfig
from tests.model_folder import TEXT
from tools.measure.swarm import own_facts as own_facts_module
from tools.measure.swarm.devices import Swarm, beginning, without_headings, words_alone
from tools.measure.swarm.gain import gain
from tools.measure.swarm.liars import FALSE, TIMES, planted
from tools.measure.swarm.own_facts import own_facts
from tools.measure.swarm.pictures import Line, picture

pytestmark = pytest.mark.jit_only
CHAT = "[2017-05-11 09:34] sea\nUser: Hello.\nAssistant: Yes.\n<|doc|>\n[2017-05-12 09:34] sky\nUser: No.\n<|doc|>\n"


@pytest.fixture
def swarm(tiny_model: Path, tmp_path: Path) -> Swarm:
    """One that aggregates by the mean."""
    pytest.importorskip("flwr")
    update = UpdateConfig(clip=1000, noise=0)
    return Swarm(hub.load(str(tiny_model)), update, AggregateConfig("mean", 0.2, 1.0), tmp_path / "cache")


def test_what_others_learned_of_the_same_text_makes_it_cheaper(swarm: Swarm) -> None:
    texts = dict.fromkeys(("one", "two", "three"), 16 * TEXT)  # of less a random model learns no more than noise
    found = gain(swarm, texts, ["one"], 2, 0)
    assert [row["round"] for row in found["rounds"]] == [1, 2]
    assert found["rows"][0]["share_of_step"] == 0 or found["rows"][0]["gain"]["chat"] > 0
    # One text on two layers: two devices that learn the same learn it once.
    assert len(list(swarm.cache.iterdir())) in (1, 2)


def test_own_facts_are_asked_without_the_layer_and_with_it(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    load = own_facts_module.recall

    def recall(options: EngineOptions, facts: Sequence[ToldFact]) -> dict[str, Any]:
        opened.append(len(options.layers or ()))
        return load(options, facts)

    monkeypatch.setattr(own_facts_module, "recall", recall)
    facts = [ToldFact("My dog is called Biscuit.", "What is my dog called?", "Biscuit")]
    found = own_facts(swarm, {"one": TEXT, "two": TEXT}, 1, facts)
    assert opened == [0, 1]
    assert [found[key]["right"] for key in ("without", "with")] == [1, 1]


def test_a_chat_without_headings_and_labels() -> None:
    assert without_headings(CHAT) == "User: Hello.\nAssistant: Yes.\n<|doc|>\nUser: No.\n<|doc|>\n"
    assert words_alone(CHAT) == "Hello.\nYes.\nNo.\n"
    assert beginning(CHAT, len(CHAT) - 10) == CHAT[: CHAT.index("<|doc|>")]
    assert beginning(CHAT, 0) == CHAT


def test_the_false_sentence_stands_in_a_liars_text_so_often() -> None:
    assert planted(TEXT).count(FALSE) == TIMES - 1
    assert planted(TEXT).replace(f"\n{FALSE}\n", "") == TEXT


@pytest.mark.parametrize("log", [False, True])
def test_a_picture_is_xml_with_a_line_each(log: bool) -> None:
    pytest.importorskip("matplotlib")
    lines = [Line("a < b", [(1, 0.01), (10, 0.05)]), Line("general", [(1, -0.01), (10, -0.02)], thick=True)]
    drawn = picture("gain & loss", "round", "bits", lines, log=log)
    assert drawn == picture("gain & loss", "round", "bits", lines, log=log)
    words = {node.text for node in ElementTree.fromstring(drawn).iter() if node.text}
    assert {"a < b", "general", "gain & loss", "round", "bits"} <= words
