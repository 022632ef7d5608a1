"""The conversations of a profile that are kept between requests, so that what was read is not read again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgelm.config import SampleConfig
from edgelm.conversation import Conversation

KEPT_BYTES = 12 << 20
"""What the states of kept conversations may take together."""
FEWEST, MOST = 4, 64
"""Conversations that are kept, whatever their states take."""
Exchanges = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Asked:
    """A turn that shall be answered, however it was asked for.

    Attributes
    ----------
    text : str
        The person's words.
    history : tuple of (str, str)
        Earlier turns and their answers.
    system : str
    sampling : SampleConfig
    seed : int, optional
    learn : bool, optional
        Default: what the server was told.
    user : str
        The key of a conversation that goes on; empty: the history is its key.
    conversation : str
        The id of one that is kept; empty: none is meant.
    """

    text: str
    history: Exchanges = ()
    system: str = ""
    sampling: SampleConfig = field(default_factory=SampleConfig)
    seed: int | None = None
    learn: bool | None = None
    user: str = ""
    conversation: str = ""


@dataclass(eq=False)
class Talk:
    """A kept conversation, and the lock that a request holds while it uses it."""

    conversation: Conversation
    user: str = ""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def digest(self) -> str:
        """What its turns come to, as a key."""
        return digest(self.conversation.system, tuple(self.conversation.exchanges))


class Talks:
    """Conversations by their id, by the user whom a client named, and by what was said in them.

    Parameters
    ----------
    state_bytes : int
        Of one conversation.
    """

    def __init__(self, state_bytes: int) -> None:
        self.most = min(MOST, max(FEWEST, KEPT_BYTES // max(1, state_bytes)))
        self._talks: OrderedDict[str, Talk] = OrderedDict()  # by id, the one used last is the last

    def __len__(self) -> int:
        return len(self._talks)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(list(self._talks.values()))

    def get(self, talk_id: str) -> Talk | None:
        """That of an id."""
        return self._talks.get(talk_id)

    def find(self, asked: Asked) -> Talk | None:
        """The conversation that a turn goes on, if it is kept.

        Of a user who names no earlier turns it is whatever was said last. Otherwise the turns must be the same.
        """
        if asked.conversation:
            return self._talks.get(asked.conversation)
        if not asked.history and not asked.user:
            return None
        wanted = digest(asked.system, asked.history)
        for talk in reversed(self._talks.values()):
            if talk.user != asked.user:
                continue
            if asked.user and not asked.history and talk.conversation.system == asked.system:
                return talk
            if talk.digest == wanted and (asked.user or not talk.lock.locked()):
                return talk
        return None

    def keep(self, talk: Talk) -> None:
        """Keeps a conversation, as the one used last; the one used longest ago goes, if there are too many."""
        self._talks[talk.id] = talk
        self._talks.move_to_end(talk.id)
        for old in list(self._talks.values()):
            if len(self._talks) <= self.most:
                break
            if not old.lock.locked():
                del self._talks[old.id]

    def discard(self, talk: Talk) -> None:
        """Keeps it no more."""
        self._talks.pop(talk.id, None)


def digest(system: str, exchanges: Sequence[tuple[str, str]]) -> str:
    """A hash of what was said."""
    said = json.dumps([system.strip(), [[a.strip(), b.strip()] for a, b in exchanges]])
    return hashlib.sha256(said.encode()).hexdigest()
