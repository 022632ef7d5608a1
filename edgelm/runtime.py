"""Composition root: model, session, learner and profile of one process."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelm.config import LearnConfig, SampleConfig, data_dir
from edgelm.engine.generate import reply
from edgelm.engine.graphfile import check_graph
from edgelm.engine.session import OrtSession
from edgelm.errors import InputError
from edgelm.learn.profile import MEMORY, Profile
from edgelm.model import hub
from edgelm.model.reference import State, forward
from edgelm.model.weights import adaptable_names
from edgelm.text.conversation import USER_LABEL, reply_prompt, system_text, user_turn
from edgelm.text.secrets import without_secrets
from edgelm.text.tokenizer import DOC_ID, document_ids

if TYPE_CHECKING:
    from edgelm.learn.fast_memory import FastMemory
    from edgelm.learn.learner import Learner

SAVE_SECONDS = 15.0
"""How often a long adaptation writes what it learned."""


@dataclass(frozen=True)
class RuntimeOptions:
    """What the common options of the command line say.

    Attributes
    ----------
    model : str or None
        A bundled model's name or a folder.
    profile : str
    threads, seed : int
        ``seed`` 0 draws a new one.
    """

    model: str | None = None
    profile: str = "default"
    threads: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Learned:
    """What a turn taught: tokens, and mean nats per token before and after."""

    tokens: int
    loss_before: float
    loss_after: float

    @property
    def bits_gained(self) -> float:
        """Bits by which the same text became cheaper."""
        return float((self.loss_before - self.loss_after) * self.tokens / np.log(2))


class Runtime:
    """A model with a profile, ready to answer and to learn.

    Parameters
    ----------
    options : RuntimeOptions
    learn : LearnConfig
    writable : bool
        Holds the profile for writing; a second process is refused.
    max_awake : int, optional
        At most this many blocks awake, instead of the model's own number.

    Raises
    ------
    ModelFileError, ProfileError
        The model or the profile cannot be used.
    """

    def __init__(
        self, options: RuntimeOptions, learn: LearnConfig | None = None, *, writable: bool = False,
        max_awake: int | None = None, use_profile: bool = True,
    ) -> None:  # fmt: skip
        self.model = hub.load(options.model)
        self.learn_config = learn or LearnConfig()
        self.config = self.model.config
        graph = self.model.graph
        check_graph(graph)
        if max_awake is not None:
            if not 1 <= max_awake <= self.config.n_blocks:
                raise InputError(f"--blocks must be between 1 and {self.config.n_blocks}, the blocks of a layer")
            from edgelm.export.step import build_graph

            self.config = replace(self.config, max_awake=max_awake)
            graph = build_graph(self.config)
        self.tokenizer, self.weights = self.model.tokenizer, self.model.weights
        self.base = {name: self.weights[name].copy() for name in adaptable_names(self.config)}
        # It shares the weights, so it sees the profile's change. The profile comes last: whatever fails, nothing
        # is left held.
        self.session = OrtSession(graph, self.weights, options.threads)
        self.rng = np.random.default_rng(options.seed or None)
        self.profile: Profile | None = None
        if use_profile:
            self.profile = Profile(data_dir() / "profiles", options.profile, self.model, writable=writable)
            self.profile.apply(self.weights)

    @cached_property
    def learner(self) -> Learner:
        """The learner over this model's weights; the first use loads the kernels."""
        from edgelm.learn.learner import Learner

        return Learner(self.config, self.weights, self.base, self.model.grad_rms, self.learn_config)

    @cached_property
    def memory(self) -> FastMemory:
        """The fast memory of this profile; the first use loads the kernels."""
        from edgelm.learn.fast_memory import FastMemory

        memory = FastMemory(self.config.vocab_size)
        if self._has_memory and self.profile is not None:
            memory.rebuild(*(self.profile.memory[name] for name in MEMORY))
        return memory

    @property
    def _has_memory(self) -> bool:
        return self.profile is not None and len(self.profile.memory) == len(MEMORY)

    @property
    def used_memory(self) -> FastMemory | None:
        """The fast memory if it holds something: who has not learned needs no kernels."""
        return self.memory if self._has_memory or "memory" in self.__dict__ else None

    def mix(self, history: Sequence[int], probabilities: np.ndarray) -> np.ndarray:
        """The distribution [V] of the next token, with what the fast memory knows."""
        memory = self.used_memory
        return probabilities if memory is None else memory.mix(history, probabilities)

    def prepare_to_learn(self) -> None:
        """Loads the kernels, or compiles them the first time, so that no measured time holds that."""
        if "learner" not in self.__dict__:
            self.learner.prepare()
            self.memory.predict(np.array([DOC_ID, 1]), 1, np.ones(1))
            self.memory.mix([DOC_ID], np.ones(self.config.vocab_size))

    def save(self) -> int:
        """Makes what was learned durable; returns the bytes of the profile."""
        if self.profile is None:
            return 0
        if "memory" in self.__dict__:
            self.profile.memory = dict(zip(MEMORY, (self.memory.tokens, self.memory.gates), strict=True))
        return self.profile.save(self.weights, self.base)

    def close(self) -> None:
        """Lets other processes use the profile."""
        if self.profile is not None:
            self.profile.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def learn_entry(self, text: str, label: str = "") -> Learned:
        """Learns one text from an empty state.

        The fast memory learns what follows the ``label`` alone: it must not take "who speaks" for a
        context of what was said.
        """
        ids = np.array([DOC_ID, *self.tokenizer.encode(text)])
        first = 1 + len(self.tokenizer.encode(label))
        said = np.array([DOC_ID, *ids[first:]])
        before = self.learner.learn(ids)
        after = self.learner.score(ids)
        kept = [losses[first - 1 :].astype(np.float64) for losses in (before, after)]
        before = np.concatenate([before[: first - 1], -np.log(self.memory.learn(said, 1, np.exp(-kept[0])))])
        after = np.concatenate([after[: first - 1], -np.log(self.memory.predict(said, 1, np.exp(-kept[1])))])
        if self.profile is not None:
            self.profile.tokens += len(before)
        return Learned(len(before), float(before.mean()), float(after.mean()))

    def adapt(self, text: str, on_tokens: Callable[[int], None], *, keep_text: bool = True) -> tuple[int, int]:
        """Learns a whole text, saving now and then; returns the tokens learned and the bytes of the profile.

        Without ``keep_text`` the weights alone learn: the fast memory, which keeps the words, does not.

        Interrupted (any exception from ``on_tokens``), what was learned is saved, and the same text goes
        on from there the next time.
        """
        assert self.profile is not None
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        known, _, count = self.profile.progress.partition(":")
        done = int(count) if known == digest and count.isdigit() else 0
        position, learned, saved_at = 0, 0, time.monotonic()

        def advance(start: int, losses: np.ndarray) -> None:
            nonlocal position, learned, saved_at
            n_tokens = len(losses)
            if keep_text:
                self.memory.learn(ids[: start + n_tokens + 1], start + 1, np.exp(-losses.astype(np.float64)))
            position += n_tokens
            learned += n_tokens
            self.profile.tokens += n_tokens  # type: ignore[union-attr]
            self.profile.progress = f"{digest}:{position}"  # type: ignore[union-attr]
            if time.monotonic() - saved_at > SAVE_SECONDS:
                self.save()
                saved_at = time.monotonic()
            on_tokens(n_tokens)

        try:
            for document in document_ids(self.tokenizer.encode_document_lines(text)):
                ids, length = np.asarray(document), len(document) - 1
                if position + length <= done:
                    position += length
                    on_tokens(length)
                    continue
                skip = max(0, done - position)
                position += skip
                on_tokens(skip)
                self.learner.learn(ids, advance, skip)
            self.profile.progress = ""
        except BaseException:
            self.save()
            raise
        return learned, self.save()


def export_model(runtime: Runtime, folder: Path, *, int8: bool) -> dict[str, Any]:
    """Writes the runtime's model as a folder for plain onnxruntime; the fields of ``export --json``.

    ``max_abs_error`` is the largest difference of a logit to the float32 reference over a fixed text.
    """
    from edgelm.engine.session import run_exported
    from edgelm.export.folder import write_export
    from edgelm.export.step import build_graph

    graph = build_graph(runtime.config, runtime.weights, int8=int8)
    ids = np.array([DOC_ID, *runtime.tokenizer.encode(_SAMPLE)])
    expected, _, _ = forward(ids, runtime.weights, State.empty(runtime.config), runtime.config)
    error = float(np.abs(run_exported(graph, ids) - expected).max())
    sizes = write_export(folder, runtime.model, graph, int8=int8, error=error)
    return {"files": sorted(sizes), "bytes": sum(sizes.values()), "max_abs_error": error}


_SAMPLE = (
    "The river was high that morning, and the ferry did not go.\nUser: What shall we do now?\n"
    "Assistant: We can walk to the bridge. It is not far, and the rain has stopped.\n"
)


@dataclass
class Turn:
    """One exchange, filled while it goes on."""

    number: int
    reply: str = ""
    tokens: int = 0
    seconds: float = 0.0
    learned: Learned | None = None
    secrets_skipped: int = 0

    def to_json(self) -> dict[str, Any]:
        """The fields of ``chat --json``."""
        learned = self.learned
        return {
            "turn": self.number,
            "reply": self.reply,
            "tokens": self.tokens,
            "tokens_per_s": round(self.tokens / self.seconds, 2) if self.seconds else 0.0,
            "learned_tokens": learned.tokens if learned else 0,
            "loss_nats_before": round(learned.loss_before, 4) if learned else None,
            "loss_nats_after": round(learned.loss_after, 4) if learned else None,
            "secrets_skipped": self.secrets_skipped,
        }


class Chat:
    """A conversation that learns from what the person writes.

    Parameters
    ----------
    runtime : Runtime
    sampling : SampleConfig
    learn : bool
    system : str
        Text that stands before the first turn.
    """

    def __init__(self, runtime: Runtime, sampling: SampleConfig, *, learn: bool, system: str = "") -> None:
        self.runtime, self.sampling, self.learn, self.system = runtime, sampling, learn, system
        self.turns: list[Turn] = []
        self.reset()

    def reset(self) -> None:
        """Begins a new conversation; what was learned stays."""
        opening = system_text(self.system) if self.system.strip() else ""
        self.runtime.session.reset()
        self._unread = [DOC_ID, *self.runtime.tokenizer.encode(opening)]

    def turn(self, text: str) -> Generator[str, None, None]:
        """Learns the person's ``text``, makes it durable, then yields the answer in pieces.

        The last element of ``turns`` tells how it went. Closing the generator ends the answer; nothing
        learned is lost.
        """
        runtime, turn = self.runtime, Turn(len(self.turns) + 1)
        self.turns.append(turn)
        said = user_turn(text)
        kept, turn.secrets_skipped = without_secrets(text) if self.learn else ("", 0)
        if kept.strip():
            runtime.prepare_to_learn()
            turn.learned = runtime.learn_entry(user_turn(kept), USER_LABEL)
            runtime.save()
        ids = [*self._unread, *runtime.tokenizer.encode(said + reply_prompt())]
        begun = time.perf_counter()
        pieces: list[str] = []
        finished = False

        def count() -> None:
            turn.tokens += 1

        tokenizer, rng = runtime.tokenizer, runtime.rng
        try:
            for piece in reply(runtime.session, tokenizer, ids, self.sampling, rng, runtime.mix, count):
                pieces.append(piece)
                yield piece
            finished = True
        finally:
            # A cut answer is closed by a line end, as a whole one is.
            self._unread = [] if finished else runtime.tokenizer.encode("\n")
            turn.reply = "".join(pieces)
            turn.seconds = time.perf_counter() - begun
