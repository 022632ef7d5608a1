"""One session, and so one set of matrices, for many dialogues."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from edgelm.engine.session import Session, Snapshot

Array = np.ndarray
PART = 256
"""Tokens that a dialogue reads at a time; a multiple of what the sessions take at a time, so nothing else changes."""


class StoppedError(Exception):
    """A dialogue was told to stop before it had read everything: its state is that of what it read."""


class SharedSession:
    """A session that dialogues use in turns, each from its own state.

    The state of a dialogue stays in the session until another one runs; only then is it copied out, so that a single
    dialogue pays nothing. Dialogues may run in several threads: a lock is held while one of them runs.

    Parameters
    ----------
    session : Session
        Whoever shares it runs it no more but through ``dialogue``.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._holder: weakref.ref[DialogueSession] | None = None

    def dialogue(self) -> DialogueSession:
        """A session of its own, from an empty state."""
        return DialogueSession(self)

    def reset(self, dialogue: DialogueSession) -> None:
        """Empties the state of a dialogue, wherever it is."""
        with self._lock:
            if self._holder is not None and self._holder() is dialogue:
                self._session.reset()
            dialogue.state = None

    @contextmanager
    def held_by(self, dialogue: DialogueSession) -> Iterator[Session]:
        """The session in the state of a dialogue; what becomes of the state is kept for it."""
        with self._lock:
            holder = None if self._holder is None else self._holder()
            if holder is not dialogue:
                if holder is not None:
                    holder.state = self._session.snapshot()
                # Until the dialogue's state is in the session, nobody holds it: an interrupt may come in between.
                self._holder = None
                state = dialogue.state
                if state is None:
                    self._session.reset()
                else:
                    self._session.restore(state)
                self._holder = weakref.ref(dialogue)
                dialogue.state = None
            yield self._session


class DialogueSession(Session):
    """What one dialogue sees of a shared session: a session with a state of its own.

    Parameters
    ----------
    shared : SharedSession

    Attributes
    ----------
    state : Snapshot or None
        The state while another dialogue runs; None where it is empty, or in the session.
    stopped : callable
        Asked between two parts of a long text whether it is wanted no more.
    """

    def __init__(self, shared: SharedSession) -> None:
        self._shared = shared
        self.state: Snapshot | None = None
        self.stopped: Callable[[], bool] = lambda: False

    @property
    def vocab_size(self) -> int:
        """V, logits of a position."""
        return self._shared._session.vocab_size

    @property
    def state_bytes(self) -> int:
        """Bytes of the state, whatever the position."""
        return self._shared._session.state_bytes

    def run(self, ids: Array, first_logit: int | None = None) -> Array:
        """Feeds ids [T]; returns logits [N,V] of the positions from ``first_logit`` (default: the last).

        Between two parts of a long text other dialogues may run.

        Raises
        ------
        StoppedError
            ``stopped`` said so between two parts.
        """
        first = len(ids) - 1 if first_logit is None else first_logit
        found = []
        for start in range(0, len(ids), PART):
            if start and self.stopped():
                raise StoppedError
            part = ids[start : start + PART]
            with self._shared.held_by(self) as session:
                if len(part) == 1 and first <= start:
                    # Those of a single token would be overwritten by the next run, of whatever dialogue.
                    found.append(session.run(part).copy())
                    continue
                logits = session.run(part, min(max(first - start, 0), len(part) - 1))
            if first < start + len(part):
                found.append(logits)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def observe(self, ids: Array) -> tuple[Array, Array]:
        """Feeds ids [T]; returns all logits [T,V] and the router's activations [L,T,M], before the cap."""
        with self._shared.held_by(self) as session:
            return session.observe(ids)

    def reset(self) -> None:
        """Forgets everything that was fed."""
        self._shared.reset(self)

    def snapshot(self) -> Snapshot:
        """A copy of the state."""
        with self._shared.held_by(self) as session:
            return session.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Returns to a state that ``snapshot`` gave."""
        with self._shared.held_by(self) as session:
            session.restore(snapshot)
