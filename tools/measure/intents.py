"""Measures how well intents are told apart: by word vectors, as ``edgelm serve --intents`` does it, and by the model.

    python -m tools.measure.intents [--intents FILE] [--heard FILE] [--model NAME|PATH] [--misses]

Each way gives every intent a number for a sentence. *First* is the share of the sentences with an intent whose intent
comes first. The threshold for "none of them" is the one that is right most often on the first, third, fifth ...
sentence of each intent; the figures behind it are of the other sentences. *Shipped* has the threshold of
``edgelm.serve.recognise``; with it the sentences of ``intents_later.toml``, which decided nothing, are tried too. The
ways of the model:

choose        the first example of each intent as an answer to the sentence (``edgelm.measure.choosing.choose``)
choose, less  the same, less what the candidate has after "Hello."
examples      the sentence after all examples of an intent, less what it has after nothing, in nats a token
both          word vectors and a tenth of examples
"""

from __future__ import annotations

import argparse
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.measure.choosing import choose
from edgelm.measure.score import rank_continuations
from edgelm.runtime import Engine, EngineOptions
from edgelm.serve.intents import bare_words, read_intents
from edgelm.serve.recognise import THRESHOLD, Recogniser

HERE = Path(__file__).parent
LATER = HERE / "intents_later.toml"
LEAST = -1e9


class Tried:
    """The sentences, which of them set the threshold, and a table of the ways.

    Parameters
    ----------
    heard : list of dict
    """

    def __init__(self, heard: list[dict[str, Any]]) -> None:
        self.texts = [one["text"] for one in heard]
        self.wanted = np.array([one["intent"] for one in heard])
        number = [int((self.wanted[:i] == wanted).sum()) for i, wanted in enumerate(self.wanted)]
        self.sets = np.array(number) % 2 == 0

    def row(self, name: str, scores: np.ndarray, threshold: float | None = None) -> tuple[str, np.ndarray]:
        """A line of the table, and the intents that were recognised."""
        wanted, rest = self.wanted, ~self.sets
        first, best, meant = scores.argmax(1) + 1, scores.max(1), wanted > 0
        if threshold is None:
            tried = np.unique(best)
            right = [(np.where(best >= t, first, 0) == wanted)[self.sets].mean() for t in tried]
            threshold = float(np.median(tried[np.equal(right, max(right))]))
        got = np.where(best >= threshold, first, 0)
        has, none = rest & meant, rest & ~meant
        cells = [
            f"{np.mean(first[meant] == wanted[meant]):.1%}", f"{threshold:.3f}",
            f"{np.mean(got[self.sets] == wanted[self.sets]):.1%}", f"{np.mean(got[rest] == wanted[rest]):.1%}",
            f"{(got[has] == wanted[has]).sum()} of {has.sum()}",
            f"{((got[has] != wanted[has]) & (got[has] > 0)).sum()}", f"{(got[none] > 0).sum()} of {none.sum()}",
        ]  # fmt: skip
        return f"| {name} | " + " | ".join(cells) + " |", got


def by_model(engine: Engine, recogniser: Recogniser, texts: list[str]) -> dict[str, tuple[np.ndarray, float]]:
    """The ways of the model: numbers [sentences, intents], and seconds a sentence."""
    examples = [intent.examples for intent in recogniser.intents.intents]

    def chosen(text: str) -> list[float]:
        candidates = [" ".join(one[0].split()) for one in examples]
        # Candidates that are the same get the same number.
        values = dict(choose(engine, text, list(dict.fromkeys(candidates)), as_reply=True))
        return [values[candidate] for candidate in candidates]

    def after(before: str, text: str) -> float:
        ids = engine.template.document(engine.tokenizer.encode(before))
        return rank_continuations(engine.new_session(), engine.tokenizer, ids, [text], None, as_reply=False)[0][1]

    def sentence(words: str) -> str:
        return words.capitalize() + ".\n"

    def among(text: str) -> list[float]:
        said = sentence(" ".join(bare_words(text)))
        alone, n = after("", said), len(engine.tokenizer.encode(said))
        return [(after("".join(map(sentence, one)), said) - alone) / n for one in examples]

    base = np.array(chosen("Hello."))
    raw, raw_s = timed(chosen, texts)
    listed, listed_s = timed(among, texts)
    return {"choose": (raw, raw_s), "choose, less": (raw - base, raw_s), "examples": (listed, listed_s)}


def timed(scores: Callable[[str], Any], texts: list[str]) -> tuple[np.ndarray, float]:
    """Numbers of all sentences, and seconds a sentence."""
    begun = time.perf_counter()
    found = np.array([scores(text) for text in texts], np.float64)
    return np.maximum(found, LEAST), (time.perf_counter() - begun) / len(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--intents", type=Path, default=HERE / "intents.toml")
    parser.add_argument("--heard", type=Path, default=HERE / "intents_heard.toml")
    parser.add_argument("--model")
    parser.add_argument("--misses", action="store_true", help="print what was recognised wrongly")
    args = parser.parse_args()
    heard = tomllib.loads(args.heard.read_text(encoding="utf-8"))["heard"]
    tried = Tried(heard)
    with Engine(EngineOptions(args.model, bank=False), use_profile=False, fixed=True) as engine:
        recogniser = Recogniser(read_intents(args.intents), engine.meaning)
        ways = {"word vectors": timed(recogniser.scores, tried.texts)} | by_model(engine, recogniser, tried.texts)
    ways["both"] = (ways["word vectors"][0] + 0.1 * ways["examples"][0], ways["examples"][1] + ways["word vectors"][1])
    titles = [
        "first", "threshold", "right where it was set", "right elsewhere", "found", "another",
        "none taken for one", "ms",
    ]  # fmt: skip
    print(f"| way | {' | '.join(titles)} |\n|---|" + "--:|" * len(titles))
    for name, (scores, seconds) in ways.items():
        print(f"{tried.row(name, scores)[0]} {1e3 * seconds:.0f} |")
    row, got = tried.row("shipped", ways["word vectors"][0], THRESHOLD)
    print(f"{row} {1e3 * ways['word vectors'][1]:.0f} |")
    told(recogniser, heard, got, args.misses)
    later = tomllib.loads(LATER.read_text(encoding="utf-8"))["heard"]
    print(f"\n{LATER.name}:")
    told(recogniser, later, recognised(recogniser, later), args.misses)


def recognised(recogniser: Recogniser, heard: list[dict[str, Any]]) -> np.ndarray:
    """The intents of sentences, as ``edgelm serve`` has them."""
    scores = np.array([recogniser.scores(one["text"]) for one in heard])
    return np.where(scores.max(1) >= THRESHOLD, scores.argmax(1) + 1, 0)


def told(recogniser: Recogniser, heard: list[dict[str, Any]], got: np.ndarray, misses: bool) -> None:
    """Prints how many of all sentences were recognised, and whether their slots were filled."""
    wanted = np.array([one["intent"] for one in heard])
    meant, ours = wanted > 0, {"intent", "text"}
    filled = [
        all(str(recogniser.entities(g - 1, one["text"]).get(k)) == v for k, v in one.items() if k not in ours)
        for one, g in zip(heard, got, strict=True) if g and g == one["intent"] and one.keys() - ours
    ]  # fmt: skip
    print(
        f"\nOf {meant.sum()} sentences with an intent {(got == wanted)[meant].sum()} were recognised, "
        f"{((got != wanted) & (got > 0))[meant].sum()} taken for another; of {(~meant).sum()} without one "
        f"{(got > 0)[~meant].sum()} were taken for one. Slots, where there are any: {sum(filled)} of {len(filled)} "
        "have them all filled as they should be."
    )
    if misses:
        for one, g in zip(heard, got, strict=True):
            if g != one["intent"]:
                print(f"{one['intent']:3d} -> {g:2d}  {one['text']}")


if __name__ == "__main__":
    main()
