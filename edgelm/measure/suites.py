"""The measures of learning, each in a throw-away copy of a profile and on whatever text is given.

Nothing is claimed from a falling loss: what was told is looked for in a newly loaded model, with the state empty.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.config import LearnConfig, SampleConfig
from edgelm.engine.generate import Reply
from edgelm.engine.suggest import suggest_words
from edgelm.log.entry import CHAT, TEXT
from edgelm.log.folder import files_of
from edgelm.measure.facts import Fact, everyday_prompts
from edgelm.measure.score import rank_continuations, score_text
from edgelm.runtime import Engine, EngineOptions, profiles_dir
from edgelm.text.files import pieces
from edgelm.text.general import general_text

CORRECTED = 40
NARROW_TOKENS = 100_000
NOISE_SEGMENTS = 200
COPIED_WORDS = 8
OnTokens = Callable[[int], None]


class Trial:
    """A throw-away copy of a profile, opened and closed as processes do.

    What is measured is what a process has: ``Engine`` makes model, profile, session and adaptation.

    Parameters
    ----------
    options : EngineOptions
        Model and profile; the profile need not exist, and is never written.
    config : LearnConfig

    Attributes
    ----------
    engine : Engine
        Over the copy. It computes with one thread whatever the options say, and without the bank of exchanges.
    """

    def __init__(self, options: EngineOptions, config: LearnConfig) -> None:
        self._config = config
        self._folder = tempfile.TemporaryDirectory(prefix="edgelm-")
        for path in files_of(options.profiles or profiles_dir(), options.profile):
            shutil.copy(path, self._folder.name)
        self._options = replace(options, profiles=Path(self._folder.name), threads=1, bank=False)
        self._open()

    def _open(self) -> None:
        self.engine = Engine(self._options, self._config, writable=True)
        self.engine.adaptation.catch_up()

    def restart(self) -> None:
        """What the end of a process and the start of another leave."""
        self.engine.adaptation.consolidate()
        self.engine.adaptation.write_checkpoint()
        self.engine.close()
        self._open()

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()
        self._folder.cleanup()

    def tell(self, kind: str, text: str, on_tokens: OnTokens = lambda _: None) -> None:
        """Learns one entry."""
        adaptation = self.engine.adaptation
        adaptation.learn(adaptation.tell(kind, text, conversation=1), on_tokens=on_tokens)

    def learn_text(self, text: str, on_tokens: OnTokens) -> None:
        """Learns a text as ``adapt`` does."""
        for piece in pieces(text):
            self.tell(TEXT, piece, on_tokens)

    def bits_per_byte(self, text: str) -> float:
        """Static score of a text with both memories."""
        engine = self.engine
        return score_text(engine.session, engine.tokenizer, engine.config, text, engine.adaptation.memory).bits_per_byte

    def best(self, before: str, candidates: Sequence[str], *, as_reply: bool) -> str:
        """The likeliest candidate, as ``choose`` finds it."""
        engine = self.engine
        if as_reply:
            texts, before = [engine.template.answer(text) for text in candidates], self._reminded(before)
        else:
            texts = [f" {text}" for text in candidates]
        ids = engine.template.document(engine.tokenizer.encode(before))
        memory = engine.adaptation.memory
        ranking = rank_continuations(engine.session, engine.tokenizer, ids, texts, memory, as_reply=as_reply)
        return ranking[0][0].strip()

    def _reminded(self, text: str) -> str:
        template = self.engine.template
        asked = template.user_turn(text) + template.reply_prompt()
        return self.engine.reminder(asked) + asked

    def answer(self, text: str, rng: np.random.Generator) -> str:
        """An answer to the first words of a new conversation."""
        engine = self.engine
        engine.session.reset()
        ids = engine.template.document(engine.tokenizer.encode(self._reminded(text)))
        sampling = SampleConfig(max_tokens=60)
        mix = engine.new_mix(as_reply=True)
        drawn = Reply(engine.session, engine.tokenizer, ids, sampling, rng, mix, engine.template)
        return "".join(drawn)


def _asked(trial: Trial, fact: Fact) -> dict[str, str]:
    """The answers of each way of asking."""
    sentences = [fact.reply.format(answer=answer) for answer in fact.choices]
    by_sentence = dict(zip(sentences, fact.choices, strict=True))
    return {
        "in_words": trial.best(fact.prompt, fact.choices, as_reply=False),
        "as_reply": by_sentence[trial.best(fact.question, sentences, as_reply=True)],
        "as_short_reply": trial.best(fact.question, fact.choices, as_reply=True),
        "paraphrased": by_sentence[trial.best(fact.paraphrase, sentences, as_reply=True)],
    }


def _shares(rows: list[dict[str, str]], right: Sequence[str]) -> dict[str, float]:
    return {
        way: round(float(np.mean([row[way] == answer for row, answer in zip(rows, right, strict=True)])), 4)
        for way in rows[0]
    }


def facts(trial: Trial, told: Sequence[Fact], on_tokens: OnTokens) -> dict[str, Any]:
    """Tells facts once, ends the process, and asks for each among 20 answers; then talks of other things."""
    for fact in told:
        trial.tell(CHAT, fact.tell, on_tokens)
    trial.restart()
    rows = [_asked(trial, fact) for fact in told]
    shares = _shares(rows, [fact.answer for fact in told])
    rng = np.random.default_rng(0)
    copied = [_copies(trial.answer(prompt, rng), [fact.tell for fact in told]) for prompt in everyday_prompts()]
    return {"facts": len(told), **shares, "parroting": round(float(np.mean(copied)), 4)}


def _copies(answer: str, said: Sequence[str]) -> bool:
    """Whether eight words in a row were the person's."""

    def runs(text: str) -> set[tuple[str, ...]]:
        words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
        return {tuple(words[i : i + COPIED_WORDS]) for i in range(len(words) - COPIED_WORDS + 1)}

    return bool(runs(answer) & set().union(*map(runs, said)))


def correction(trial: Trial, told: Sequence[Fact], on_tokens: OnTokens) -> dict[str, Any]:
    """Tells facts, contradicts the first of them, and asks for those and for the others."""
    for fact in told:
        trial.tell(CHAT, fact.tell, on_tokens)
    trial.restart()
    corrected, others = told[:CORRECTED], told[CORRECTED:]
    before = [_asked(trial, fact) for fact in others]
    for fact in corrected:
        trial.tell(CHAT, fact.correction.format(answer=fact.others[0]), on_tokens)
    trial.restart()
    after = [_asked(trial, fact) for fact in others]
    rows, pairs = [], [(fact.others[0], fact.answer) for fact in corrected]
    for fact, (new, old) in zip(corrected, pairs, strict=True):
        sentences = {fact.reply.format(answer=answer): answer for answer in (new, old)}
        rows.append(
            {
                "in_words": trial.best(fact.prompt, (new, old), as_reply=False),
                "as_reply": sentences[trial.best(fact.question, list(sentences), as_reply=True)],
            }
        )
    lost = {way: _lost([fact.answer for fact in others], way, before, after) for way in ("in_words", "as_reply")}
    return {"corrected": len(corrected), **_shares(rows, [new for new, _ in pairs]), "disturbed": lost}


def _lost(right: Sequence[str], way: str, before: list[dict[str, str]], after: list[dict[str, str]]) -> float:
    """The share of what was right and is wrong now."""
    lost = [b[way] == answer != a[way] for answer, b, a in zip(right, before, after, strict=True)]
    return round(float(np.mean(lost)), 4) if lost else 0.0


def forgetting(trial: Trial, text: str, on_tokens: OnTokens) -> dict[str, Any]:
    """Learns up to 100,000 tokens of a text and scores general text; then noise, which must be taken back."""
    before, learned = trial.bits_per_byte(general_text()), 0
    for piece in pieces(text):
        if learned >= NARROW_TOKENS:
            break
        trial.tell(TEXT, piece, on_tokens)
        learned += len(trial.engine.model.tokenizer.encode(piece))
    trial.restart()
    after = trial.bits_per_byte(general_text())
    rng, segment = np.random.default_rng(0), LearnConfig().segment
    tripped = None
    for number in range(0, NOISE_SEGMENTS, 8):
        ids = rng.integers(1, trial.engine.model.config.vocab_size, 8 * segment)
        trial.tell(TEXT, trial.engine.model.tokenizer.decode([int(i) for i in ids]))
        if trial.engine.adaptation.entries[-1].note:
            tripped = number + 8
            break
    trial.restart()
    return {
        "tokens": learned,
        "general_before": round(before, 4),
        "general_after": round(after, 4),
        "general_change": round(after / before - 1, 5),
        "noise_taken_back_after_segments": tripped,
        "general_after_noise": round(trial.bits_per_byte(general_text()), 4),
    }


def author(trial: Trial, text: str, on_tokens: OnTokens) -> dict[str, Any]:
    """Adapts on the first 80 % of a text, and scores the last 20 % before and after."""
    first, last = _split(text)
    before, general = trial.bits_per_byte(last), trial.bits_per_byte(general_text())
    trial.learn_text(first, on_tokens)
    trial.restart()
    after, general_after = trial.bits_per_byte(last), trial.bits_per_byte(general_text())
    return {
        "bits_per_byte_before": round(before, 4),
        "bits_per_byte_after": round(after, 4),
        "gain": round(1 - after / before, 4),
        "general_before": round(general, 4),
        "general_after": round(general_after, 4),
        "general_change": round(general_after / general - 1, 5),
    }


def _split(text: str) -> tuple[str, str]:
    cut = text.find("\n", int(len(text) * 0.8))
    cut = cut if 0 <= cut < len(text) - 1 else int(len(text) * 0.8)
    return text[:cut], text[cut:].lstrip("\n")


def suggest(trial: Trial, text: str, on_tokens: OnTokens, places: int = 400) -> dict[str, Any]:
    """Suggests words at places of the last 20 % of a text, before and after adapting on the first 80 %."""
    first, last = _split(text)
    words = last.split(" ")
    rng = np.random.default_rng(0)
    chosen = sorted(int(i) for i in rng.choice(np.arange(8, len(words)), min(places, len(words) - 8), replace=False))
    before = _suggested(trial, words, chosen)
    trial.learn_text(first, on_tokens)
    trial.restart()
    return {"places": len(chosen), "before": before, "after": _suggested(trial, words, chosen)}


def _suggested(trial: Trial, words: list[str], places: Sequence[int]) -> dict[str, float]:
    engine, tokenizer = trial.engine, trial.engine.tokenizer
    hits, top, saved, typed = 0, 0, 0, 0
    for place in places:
        wanted = "".join(c for c in words[place] if c.isalnum())
        if not wanted:
            continue
        ids = engine.template.document(tokenizer.encode(" ".join(words[max(0, place - 60) : place])))
        found = suggest_words(engine.session, tokenizer, ids, 3, engine.new_mix)
        names = [word for word, _ in found]
        hits += names[:1] == [wanted]
        top += wanted in names
        # One key chooses the word and its space.
        saved += len(wanted) if wanted in names else 0
        typed += len(wanted) + 1
    count = max(1, len(places))
    return {
        "first": round(hits / count, 4),
        "first_three": round(top / count, 4),
        "keystrokes_saved": round(saved / max(1, typed), 4),
    }
