"""What happens to weights and memory, for whoever wants to show or count it.

An engine reports to one callable, ``on_event``. It is called in the thread that learns, between two segments, with no
lock held. It must be quick, since learning waits for it, and must not raise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SegmentLearned:
    """The weights were changed by one segment: of something new, of a replay, or of a consolidation.

    Attributes
    ----------
    tokens : int
    loss_nats : float
        Mean of its tokens, before it was learned.
    blocks_awake : int
        Neuron blocks, over all layers, that woke for a token of it; no others were changed.
    """

    tokens: int
    loss_nats: float
    blocks_awake: int


@dataclass(frozen=True)
class GuardrailChecked:
    """General text was scored, as after every so many segments.

    Attributes
    ----------
    excess : float
        Share by which it costs more than with the base model. It is infinite where nothing was scored, because the
        segment under way could not be learned: a loss or a gradient was not finite.
    action : str
        ``kept``: what was learned stays. ``pulled``: the weights were pulled towards the base. ``restored``: they are
        those of the last good point.
    """

    excess: float
    action: Literal["kept", "pulled", "restored"]


@dataclass(frozen=True)
class Consolidated:
    """What was told was repeated.

    Attributes
    ----------
    entries : int
        Entries of the log that were to be repeated.
    steps : int
        Steps that were gone through, with those that turned out not to be needed.
    complete : bool
        Whether it came to its end; what was broken off is left to the next one.
    """

    entries: int
    steps: int
    complete: bool


@dataclass(frozen=True)
class Forgotten:
    """Entries were taken out of the log and all files; the rest of the log is replayed next.

    Attributes
    ----------
    entry_ids : tuple of int
        With those that could not stay without them.
    """

    entry_ids: tuple[int, ...]


Event = SegmentLearned | GuardrailChecked | Consolidated | Forgotten
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Nobody wants to know."""


class Reporter:
    """Passes events on to one listener, which may be exchanged at any time."""

    def __init__(self) -> None:
        self.listener: OnEvent = ignore

    def __call__(self, event: Event) -> None:
        self.listener(event)
