"""Keystrokes that suggestions save, and blanks that are filled, on an author's last 20 %, beside a dictionary.

    python -m tools.measure.keyboard FILE... [--general FILE...] [--places 200] [--blanks 200] [--bytes 150000]

The first 80 % of each text are learned, in a profile that is thrown away; the dictionaries count the same. Places of
the last 20 % are drawn with a seed: words with a space before them.

**Keystrokes.** Three words are shown before the first letter of the wanted word and after each. As soon as the word
wanted, with its capitals, is among them, one key chooses it and the space after it. A word of n letters, chosen after
j, takes j + 1 keys instead of n + 1, so n - j are saved; a word that is never shown saves nothing. The share saved is
that of all keys of the words that were drawn. What is typed already is not shown. All rivals are asked for the same
words and given the text before.

**Blanks.** One word is taken out, and looked for among the best five: by ``fill``, by the same search without what
stands after, and by a dictionary that sees the word before and the word after.

*Going on* means learning the last 20 % too, up to the line of the place (the dictionaries: up to the word). The general
words are counted from the text that comes with edgelm and the files of ``--general``.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.config import LearnConfig
from edgelm.engine.fill import MAX_WORDS, Blank, fill_blank
from edgelm.engine.session import Session
from edgelm.engine.suggest import split_begun, suggest_words
from edgelm.measure.suites import Trial
from edgelm.runtime import Engine, EngineOptions
from edgelm.text.general import general_text, rehearsal_text
from edgelm.text.tokenizer import DOC_LINE
from tools.measure.dictionary import START, WORD, Dictionary, last_word, words_of

SHOWN, LISTED = 3, 5
CONTEXT, AFTER = 1000, 200
"""Characters before a place and after it that rivals are given."""


@dataclass(frozen=True)
class Place:
    """A word of a text; ``line`` is where its line begins, ``end`` where it ends."""

    word: str
    start: int
    line: int

    @property
    def end(self) -> int:
        return self.start + len(self.word)


def places_of(text: str, n_places: int, rng: random.Random) -> list[Place]:
    """Words with a space before them, drawn at random, in the order of the text."""
    found = [match for match in WORD.finditer(text) if text[match.start() - 1 : match.start()] == " "]
    chosen = sorted(rng.sample(found, min(n_places, len(found))), key=lambda match: match.start())
    return [Place(match[0], match.start(), text.rfind("\n", 0, match.start()) + 1) for match in chosen]


def context(text: str, end: int) -> str:
    """The text up to a place, no further back than its document and CONTEXT characters, from a word's beginning on."""
    before = text[max(0, end - CONTEXT) : end]
    document = before.rfind(f"{DOC_LINE}\n")
    if document >= 0:
        return before[document + len(DOC_LINE) + 1 :]
    return before if end <= CONTEXT else before[before.find(" ") + 1 :]


def keys_saved(word: str, show: Callable[[str], list[str]]) -> int:
    """Keys saved where ``show`` says which words are shown after what was typed."""
    for typed in range(len(word)):
        if word in show(word[:typed])[:SHOWN]:
            return len(word) - typed
    return 0


@dataclass
class Tally:
    """What one rival did, and how long each call took."""

    saved: int = 0
    keys: int = 0
    places: int = 0
    first: int = 0
    listed: int = 0
    ms: list[float] = field(default_factory=list)

    def timed(self, call: Callable[[], list[str]]) -> list[str]:
        """Calls it, and keeps the milliseconds."""
        begun = time.perf_counter()
        found = call()
        self.ms.append(1000 * (time.perf_counter() - begun))
        return found

    def typed(self, word: str, show: Callable[[str], list[str]]) -> None:
        """One word more was typed."""
        self.saved += keys_saved(word, lambda typed: self.timed(lambda: show(typed)))
        self.keys += len(word) + 1

    def filled(self, word: str, find: Callable[[], list[str]]) -> None:
        """One blank more was filled."""
        found = self.timed(find)
        self.places += 1
        self.first += found[:1] == [word]
        self.listed += word in found[:LISTED]

    def fields(self) -> dict[str, float]:
        """Shares, and the median of milliseconds a call."""
        ms = round(sorted(self.ms)[len(self.ms) // 2], 2) if self.ms else 0.0
        if self.places:
            shares = {"first": self.first / self.places, "first_five": self.listed / self.places}
        else:
            shares = {"keystrokes_saved": self.saved / max(1, self.keys)}
        return {**{name: round(share, 4) for name, share in shares.items()}, "ms": ms}


class Kept:
    """A session that keeps its state after the last text that it began with: a keyboard has read what stands there."""

    def __init__(self, session: Session) -> None:
        self._session, self._begins = session, False
        self._ids, self._after = np.empty(0, np.int64), (np.empty(0), list[np.ndarray]())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def reset(self) -> None:
        """The next text begins."""
        self._session.reset()
        self._begins = True

    def run(self, ids: np.ndarray, first_logit: int | None = None) -> np.ndarray:
        """As every session, faster where the text that begins is the one before."""
        if not self._begins or first_logit is not None:
            return self._session.run(ids, first_logit)
        self._begins = False
        if np.array_equal(ids, self._ids):
            self._session.restore(self._after[1])
        else:
            self._ids, self._after = ids, (self._session.run(ids).copy(), self._session.snapshot())
        return self._after[0]


class Model:
    """edgelm in a throw-away profile, as a keyboard asks it."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self._kept: tuple[Engine, Kept] | None = None

    @property
    def session(self) -> Kept:
        """That of the engine, made anew when something was learned."""
        if self._kept is None or self._kept[0] is not self.trial.engine:
            self._kept = self.trial.engine, Kept(self.trial.engine.session)
        return self._kept[1]

    def read(self, text: str) -> None:
        """Learns a text."""
        if text.strip():
            self.trial.learn_text(text, lambda _: None)
            self._kept = None

    def suggest(self, before: str, typed: str, n_words: int) -> list[str]:
        """The likeliest words that begin as typed; what is typed itself is none."""
        engine = self.trial.engine
        stem, begins = split_begun(before + typed)
        ids = engine.template.document(engine.tokenizer.encode(stem))
        found = suggest_words(self.session, engine.tokenizer, ids, n_words + 1, engine.new_mix, begins)
        return [word for word, _ in found if word != typed][:n_words]

    def fill(self, before: str, after: str, max_words: int) -> list[str]:
        """The likeliest fills."""
        engine = self.trial.engine
        blank = Blank(before, after)
        fills = fill_blank(engine.session, engine.tokenizer, blank, LISTED, engine.new_mix, max_words, engine.template)
        return [text for text, _ in fills]


def next_word(after: str) -> str:
    """The word after a blank, or ``START`` where a sentence ends first."""
    _, _, *rest = words_of("x" + after[:AFTER])
    return rest[0] if rest else START


def type_words(text: str, places: list[Place], rivals: dict[str, Any], going_on: set[str]) -> dict[str, Tally]:
    """Every place typed with every rival; those of ``going_on`` read the text as they come to it."""
    tallies, read = {name: Tally() for name in rivals}, dict.fromkeys(going_on, 0)
    for place in places:
        before = context(text, place.start)
        for name, rival in rivals.items():
            is_model = isinstance(rival, Model)
            if name in going_on:
                upto = place.line if is_model else place.start
                rival.read(text[read[name] : upto])
                read[name] = max(upto, read[name])
            asked = before if is_model else last_word(before)
            tallies[name].typed(place.word, lambda typed, r=rival, a=asked: r.suggest(a, typed, SHOWN))
    return tallies


def fill_blanks(text: str, places: list[Place], model: Model, max_words: int, sees: int) -> Tally:
    """Every place filled with up to ``max_words`` words, by what stands before it and ``sees`` characters after it."""
    tally = Tally()
    for place in places:
        before, after = context(text, place.start), text[place.end : place.end + sees]
        tally.filled(place.word, lambda b=before, a=after: model.fill(b, a, max_words))
    return tally


class Author:
    """A text whose first 80 % are learned, with places drawn from the last 20 %."""

    def __init__(self, text: str, n_places: int, n_blanks: int, seed: int) -> None:
        cut, rng = text.find("\n", int(len(text) * 0.8)) + 1, random.Random(seed)
        self.first, self.last = text[:cut], text[cut:]
        self.places, self.blanks = places_of(self.last, n_places, rng), places_of(self.last, n_blanks, rng)
        self.keys: dict[str, Tally] = {}
        self.fills: dict[str, Tally] = {}

    def ask_dictionaries(self, general: Dictionary) -> None:
        """The general words, what the first 80 % give, and both."""
        own, both = Dictionary(), Dictionary(general)
        own.read(self.first)
        both.read(self.first)
        rivals = {"general words": general, "dictionary": own, "dictionary, general words": both}
        for name, rival in rivals.items():
            self.fills[name] = tally = Tally()
            for place in self.blanks:
                before, after = last_word(context(self.last, place.start)), next_word(self.last[place.end :])
                tally.filled(place.word, lambda r=rival, b=before, a=after: r.between(b, a, LISTED))
        self.keys |= type_words(self.last, self.places, rivals, set())
        del rivals["general words"]
        rivals = {f"{name}, going on": rival for name, rival in rivals.items()}
        self.keys |= type_words(self.last, self.places, rivals, set(rivals))

    def ask_model(self, name: str | None) -> None:
        """Before learning, after it, and going on."""
        with (
            tempfile.TemporaryDirectory(prefix="edgelm-") as folder,
            Trial(EngineOptions(name, profiles=Path(folder)), LearnConfig()) as trial,
        ):
            model = Model(trial)
            self._ask("edgelm", model)
            trial.learn_text(self.first, lambda _: None)
            trial.restart()
            self._ask("edgelm, learned", model)
            several = fill_blanks(self.last, self.blanks, model, MAX_WORDS, AFTER)
            self.fills[f"edgelm, learned, up to {MAX_WORDS} words"] = several
            going_on = "edgelm, learned, going on"
            self.keys |= type_words(self.last, self.places, {going_on: model}, {going_on})

    def _ask(self, label: str, model: Model) -> None:
        self.keys |= type_words(self.last, self.places, {label: model}, set())
        self.fills[f"{label}, what stands before alone"] = fill_blanks(self.last, self.blanks, model, 1, 0)
        self.fills[f"{label}, fill"] = fill_blanks(self.last, self.blanks, model, 1, AFTER)

    def fields(self) -> dict[str, Any]:
        """What was found, by rival."""
        return {
            "keystrokes": {name: tally.fields() for name, tally in self.keys.items()},
            "blanks": {name: tally.fields() for name, tally in self.fills.items()},
        }


def table(rows: dict[str, dict[str, Any]], kind: str, names: list[str]) -> Iterator[str]:
    """The lines of one table: rivals by authors."""
    yield f"| {kind} | " + " | ".join(rows) + " |\n|---|" + "--:|" * len(rows)
    for rival in next(iter(rows.values()))[kind]:
        cells = [", ".join(f"{100 * row[kind][rival][name]:.1f}" for name in names) for row in rows.values()]
        cells = [f"{cell} %, {row[kind][rival]['ms']:.1f} ms" for cell, row in zip(cells, rows.values(), strict=True)]
        yield f"| {rival} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--model")
    parser.add_argument("--general", type=Path, nargs="*", default=[], metavar="FILE")
    parser.add_argument("--places", type=int, default=200)
    parser.add_argument("--blanks", type=int, default=200)
    parser.add_argument("--bytes", type=int, default=150_000, help="of each FILE, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    general = Dictionary()
    for text in (general_text(), rehearsal_text(), *(path.read_text(encoding="utf-8") for path in args.general)):
        general.read(text)
    rows = {}
    for path in args.files:
        author = Author(path.read_bytes()[: args.bytes].decode(errors="ignore"), args.places, args.blanks, args.seed)
        author.ask_dictionaries(general)
        author.ask_model(args.model)
        rows[path.stem] = author.fields()
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    for kind, names in (("keystrokes", ["keystrokes_saved"]), ("blanks", ["first", "first_five"])):
        print("\n".join(table(rows, kind, names)) + "\n")


if __name__ == "__main__":
    main()
