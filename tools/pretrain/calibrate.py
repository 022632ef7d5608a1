"""Fits how likely it is that the statement that was found answers the question: ``CALIBRATION`` of ``answering.py``.

    python -m tools.pretrain.calibrate CORPUS ASKED... [--meaning MEANING.safetensors]

ASKED are files of statements and questions (``match.py``) that the vectors were not trained on. From them, from what
was held out of ``talk_memory`` and from turns of talk, logs of 1 to 200 statements are drawn. Asked are questions for
what stands in the log, for what does not, the same where what is nearest to it does, and other questions of talk. A
logistic regression over what ``answer_chance`` is given says whether the first statement is the right one. Prints its
weights, and for each of these kinds the share above each threshold, and how many of those are right.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edgelm.memory import answering
from edgelm.memory.answering import FAIR, LIKELY, SURE, chance_features
from edgelm.memory.meaning import Meaning
from edgelm.memory.questions import may_ask
from edgelm.memory.statements import Statement, Statements, is_question
from tools.pretrain.match import Asked, asked_in_talk, read_asked
from tools.pretrain.told import exchanges, told_and_asked
from tools.pretrain.word_vectors import TALK

Array = np.ndarray
LOGS, LEAST, MOST = 400, 1, 200
OTHER_TALK = ("dlg_self", "instr_dolly", "qa_small")
KINDS = ("told", "not told", "near", "other")
NEAR = 4
"""Statements that come nearest to a question for what was not told."""
STEPS, DECAY = 30, 1e-3


def drawn(meaning: Meaning, asked: Sequence[Asked], talk: Sequence[str], rng: np.random.Generator) -> Iterator[Array]:
    """Rows of a kind, whether the first statement found is right, and what ``answer_chance`` weighs."""
    told = list(dict.fromkeys(row.told for row in asked))
    questions: dict[str, list[str]] = {}
    for row in asked:
        questions.setdefault(row.told, []).append(row.asked)
    says = [text for text in talk if not is_question(text)]
    others = [text for text in talk if may_ask(text, meaning.asks(text))]
    all_told = Statements(meaning, [Statement(text, None) for text in told])
    for _ in range(LOGS):
        n = int(np.exp(rng.uniform(np.log(LEAST), np.log(MOST))))
        kept = [told[i] for i in rng.choice(len(told), n + 10, replace=False)]
        inside, outside = kept[:n], kept[n:]
        texts = inside + [says[i] for i in rng.choice(len(says), n // 2)]
        statements = Statements(meaning, [Statement(texts[i], None) for i in rng.permutation(len(texts))])
        turns = [(0, text, str(rng.choice(questions[text]))) for text in inside[:20]]
        turns += [(kind, text, str(rng.choice(questions[text]))) for text in outside for kind in (1, 2)]
        turns += [(3, "", others[i]) for i in rng.choice(len(others), 20)]
        for kind, answer, question in turns:
            log = statements
            if kind == 2:
                near = [one.statement for one in all_told.find(question, NEAR + 1) if one.statement.text != answer]
                log = Statements(meaning, near[:NEAR], statements)
            found = log.find(question)
            right = found[0].statement.text == answer
            yield np.array([kind, right, *chance_features(found, question, meaning.asks(question))])


def fitted(features: Array, right: Array) -> Array:
    """Weights of a logistic regression, by Newton's method."""
    weights = np.zeros(features.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-features @ weights))
        curvature = (features * (chance * (1 - chance))[:, None]).T @ features + DECAY * np.eye(len(weights))
        weights += np.linalg.solve(curvature, features.T @ (right - chance) - DECAY * weights)
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("asked", type=Path, nargs="+")
    parser.add_argument("--meaning", type=Path)
    args = parser.parse_args()
    meaning, rng = Meaning(args.meaning), np.random.default_rng(0)
    held = asked_in_talk(told_and_asked(args.corpus))[1]
    asked = held + [row for path in args.asked for row in read_asked(path)]
    talk = [said for name in (*TALK, *OTHER_TALK) for said, _ in exchanges(args.corpus, name)]
    rows = np.array(list(drawn(meaning, asked, talk, rng)))
    kind, right, features = rows[:, 0], rows[:, 1], rows[:, 2:]
    weights = fitted(features, right)
    print(json.dumps({"CALIBRATION": [round(float(w), 2) for w in weights]}))
    for name, used in (("as in use", np.array(answering.CALIBRATION)), ("fitted", weights)):
        chance = 1 / (1 + np.exp(-features @ used))
        for i, of in enumerate(KINDS):
            here = kind == i
            shares = {}
            for least in (SURE, FAIR, LIKELY):
                above = here & (chance > least)
                shares[str(least)] = [round(float(above.sum() / here.sum()), 3), round(float(right[above].mean()), 3)]
            fields = {"weights": name, "asked": of, "n": int(here.sum()), "first": round(float(right[here].mean()), 3)}
            print(json.dumps(fields | {"above, right": shares}))


if __name__ == "__main__":
    main()
