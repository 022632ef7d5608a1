"""The forty prompts: new to the training text of this project, and asked each in a chat of its own."""

from __future__ import annotations

import random
import re

from edgelm.runtime import Engine, EngineOptions
from tools.measure.talk import PROMPTS, ask, repeats
from tools.pretrain.clean import Filter
from tools.pretrain.everyday import Phrases, compose


def runs_of_eight(texts: list[str]) -> set[tuple[str, ...]]:
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    return {tuple(run[i : i + 8]) for run in words for i in range(len(run) - 7)}


def test_prompts_are_forty_and_not_trained_on() -> None:
    prompts = PROMPTS.read_text(encoding="utf-8").splitlines()
    assert len(set(prompts)) == 40
    assert all(prompt == prompt.strip() and prompt for prompt in prompts)
    phrases, rng, left_out = Phrases(), random.Random(0), Filter(never=prompts)
    # Slots meet by chance in the words of a prompt, rarely; the data pipeline leaves such a dialogue out.
    kept = list(left_out.keep(compose(phrases, rng) for _ in range(2000)))
    assert not runs_of_eight(prompts) & runs_of_eight(kept)
    assert left_out.left_out["never to be read"] < 5


def test_each_prompt_is_asked_in_a_chat_of_its_own() -> None:
    for bank in (True, False):
        with Engine(EngineOptions(bank=bank), use_profile=False, fixed=True) as engine:
            together = ask(engine, ["hello", "my name is Zoe", "thank you"], seed=1)
            alone = [ask(engine, [prompt], seed=1)[0] for prompt, _ in together]
        assert together == alone
        assert all(answer for _, answer in together)


def test_loops_are_seen() -> None:
    assert repeats("I like it very much and I like it very much.")
    assert repeats("it is what it is and it is what it is")
    assert not repeats("It is warm today, is it not?")
