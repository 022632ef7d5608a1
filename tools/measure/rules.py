"""Which tensors adapt, with which rule: gain, forgetting, time and bytes of each, on the same texts.

python -m tools.measure.rules FILE... [--bytes 150000] [--only NAME...] [--json]

The first 80 % of each text adapt the model in one pass, the last 20 % are scored before and after, by the weights
alone and mixed with the fast memory. General text is the package's own. No guardrail: what a rule costs is shown.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgelm.config import LearnConfig
from edgelm.engine.session import OrtSession
from edgelm.export.step import build_graph
from edgelm.learn.learner import Learner
from edgelm.measure.score import score_text
from edgelm.memory.fast_memory import FastMemory
from edgelm.model import hub
from edgelm.model.weights import Weights, shapes, tensors
from edgelm.network.network import Network
from edgelm.text.general import general_text
from edgelm.text.tokenizer import document_ids

Array = np.ndarray


@dataclass(frozen=True)
class Rule:
    """A row of the table.

    Attributes
    ----------
    name : str
    picks : callable
        Which tensors adapt.
    rule : {"rms", "momentum", "adam", "low rank"}
        Scaled by the root mean square of training text, with pull-back; the same with momentum 0.9; Adam with
        the moments of the text itself; rms on the factors of a change of rank 4 in each block.
    rate, pull, segment, epochs
        As in ``LearnConfig``; Adam's rate is in units of 1e-3 too.
    """

    name: str
    picks: Callable[[str], bool]
    rule: str = "rms"
    rate: float = 0.3
    pull: float = 1e-3
    segment: int = 32
    epochs: int = 1


def _small(name: str) -> bool:
    return name.endswith(("norm", "_bias", "log_gamma"))


def _w2(name: str) -> bool:
    return name.endswith(".w2") or _small(name)


def _w1(name: str) -> bool:
    return name.endswith(".w1") or _small(name)


RULES = (
    Rule("w2, gains, biases", _w2),
    Rule("the same, rate 0.15", _w2, rate=0.15),
    Rule("the same, rate 0.6", _w2, rate=0.6),
    Rule("the same, rate 1", _w2, rate=1.0),
    Rule("the same, no pull", _w2, pull=0.0),
    Rule("the same, pull 0.003", _w2, pull=3e-3),
    Rule("the same, segments of 16", _w2, rate=0.2, segment=16),
    Rule("the same, segments of 64", _w2, rate=0.45, segment=64),
    Rule("the same, two epochs", _w2, epochs=2),
    Rule("w1, gains, biases", _w1),
    Rule("w1, w2, gains, biases", lambda name: _w1(name) or _w2(name)),
    Rule("gains, biases", _small),
    Rule("gains, biases, rate 3", _small, rate=3.0),
    Rule("rows of the embedding and the head", lambda name: name == "embed", rate=0.1),
    Rule("mixers' projections, gains, biases", lambda name: ".mixer.w_" in name or _small(name), rate=0.1),
    Rule("all tensors", lambda name: True, rate=0.1),
    Rule("w2 by changes of rank 4", lambda name: name.endswith(".w2"), rule="low rank", rate=1.0),
    Rule("w2 by changes of rank 4, rate 2", lambda name: name.endswith(".w2"), rule="low rank", rate=2.0),
    Rule("w2, gains, biases, momentum 0.9", _w2, rule="momentum"),
    Rule("w2, gains, biases, Adam", _w2, rule="adam", rate=0.1),
    Rule("all tensors, Adam", lambda name: True, rule="adam", rate=0.05),
)


class RuleLearner(Learner):
    """A learner whose update is that of a row."""

    def __init__(self, model: hub.Model, weights: Weights, rule: Rule) -> None:
        base = {name: weights[name].copy() for name in shapes(model.config)}
        config = LearnConfig(rule.rate, rule.pull, rule.segment)
        super().__init__(model.config, weights, base, model.grad_rms, config)
        self.rule, self.names = rule, [name for name in shapes(model.config) if rule.picks(name)]
        self.network = Network(model.config, weights, self.names, rule.segment)
        self._scale = {name: np.atleast_1d(model.grad_rms[name]) + 1e-12 for name in self.names}
        self._first = {name: np.zeros_like(weights[name]) for name in self.names if rule.rule in ("momentum", "adam")}
        self._second = {name: np.zeros_like(weights[name]) for name in self.names if rule.rule == "adam"}
        self._count = 0
        rng = np.random.default_rng(0)
        self._factors = {
            name: (np.zeros((*weights[name].shape[:2], 4), np.float32), _orthogonal(rng, weights[name].shape))
            for name in self.names
            if rule.rule == "low rank"
        }

    def _update(self, losses: Array) -> None:
        self.network.backward()
        self._count += 1
        awake = self.network.awake
        for name in self.names:
            grad, weight, base = (t[name] for t in (self.network.grads, self.weights, self.base))
            scale = self._scale[name]
            if tensors(self.model)[name].blocks:
                part = awake[int(name.split(".")[1])]
                scale = (scale if len(scale) == len(grad) else np.full(len(grad), scale[0]))[:, None, None]
            else:
                part, scale = slice(None), scale[0]
            self._step(name, grad, weight, base, (part, scale, len(losses)))

    def _step(self, name: str, grad: Array, weight: Array, base: Array, where: tuple) -> None:  # type: ignore[type-arg]
        part, scale, n_steps = where
        rate, share = self.rule.rate * 1e-3, n_steps / self.rule.segment
        scaled = grad[part] / n_steps * share / (scale[part] if np.ndim(scale) else scale)
        if self.rule.rule == "low rank":
            left, right = self._factors[name]
            flat = scaled  # [blocks, D, B]
            d_left, d_right = flat @ right[part].transpose(0, 2, 1), left[part].transpose(0, 2, 1) @ flat
            left[part] -= rate * d_left
            right[part] -= rate * d_right
            weight[part] = base[part] + left[part] @ right[part]
            return
        if self.rule.rule == "momentum":
            self._first[name][part] = 0.9 * self._first[name][part] + 0.1 * scaled
            scaled = self._first[name][part]
        elif self.rule.rule == "adam":
            mean = grad[part] / n_steps
            self._first[name][part] = 0.9 * self._first[name][part] + 0.1 * mean
            self._second[name][part] = 0.99 * self._second[name][part] + 0.01 * mean**2
            first = self._first[name][part] / (1 - 0.9**self._count)
            scaled = first / (np.sqrt(self._second[name][part] / (1 - 0.99**self._count)) + 1e-8)
        weight[part] += self.rule.pull * share * (base[part] - weight[part]) - rate * scaled

    @property
    def n_bytes(self) -> int:
        """What a profile would keep of the change, in float16."""
        if self._factors:
            return 2 * sum(left.size + right.size for left, right in self._factors.values())
        return 2 * sum(int((self.weights[name] != self.base[name]).sum()) for name in self.names)


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    drawn = rng.normal(size=(shape[0], shape[2], 4))
    return np.ascontiguousarray(np.linalg.qr(drawn)[0].transpose(0, 2, 1), np.float32)


def measure(path: Path, n_bytes: int, rule: Rule, model_name: str | None) -> dict[str, object]:
    """One row."""
    model = hub.load(model_name)
    session = OrtSession(build_graph(model.config), model.weights)
    learner, memory = RuleLearner(model, model.weights, rule), FastMemory(model.tokenizer)
    text = path.read_bytes()[:n_bytes].decode("utf-8", errors="ignore")
    cut = text.find("\n", int(len(text) * 0.8))
    first, last = text[:cut], text[cut + 1 :]

    def bits(part: str, memory: FastMemory | None = None) -> float:
        return score_text(session, model.tokenizer, model.config, part, memory).bits_per_byte

    before, general = bits(last), bits(general_text())
    tokens, seconds = 0, 0.0
    for epoch in range(rule.epochs):
        for ids in document_ids(model.tokenizer.encode_document_lines(first)):
            begun = time.perf_counter()
            losses = learner.learn(ids)
            seconds += time.perf_counter() - begun
            tokens += len(losses)
            if epoch == 0:
                memory.learn(np.array(ids), 1, np.exp(-losses.astype(np.float64)))
    return {
        "text": path.stem,
        "rule": rule.name,
        "rate": rule.rate,
        "gain": 1 - bits(last) / before,
        "gain_both": 1 - bits(last, memory) / before,
        "general": bits(general_text()) / general - 1,
        "ms_per_token": 1e3 * seconds / tokens,
        "bytes": learner.n_bytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--bytes", type=int, default=150_000, dest="n_bytes")
    parser.add_argument("--model")
    parser.add_argument("--only", nargs="*", help="rows whose name holds one of these words")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not args.json:
        print("| text | what adapts | rate | gain | with the fast memory | general text | ms a token | MB | gain/MB |")
        print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for rule in RULES:
        if args.only and not any(word in rule.name for word in args.only):
            continue
        for path in args.files:
            row = measure(path, args.n_bytes, rule, args.model)
            if args.json:
                print(json.dumps(row), flush=True)
                continue
            megabytes = row["bytes"] / 1e6
            print(
                f"| {row['text']} | {row['rule']} | {row['rate']} | {row['gain']:.1%} | {row['gain_both']:.1%} | "
                f"{row['general']:+.1%} | {row['ms_per_token']:.2f} | {megabytes:.2f} | "
                f"{100 * row['gain'] / max(megabytes, 1e-3):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
