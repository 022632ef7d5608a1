"""The background thread that learns: in order, whole updates only, consolidating when nothing else is to do."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from edgelm.learn.adaptation import Adaptation
from edgelm.log.entry import Entry

if TYPE_CHECKING:
    from edgelm.learn.replay import Learned

OnTokens = Callable[[int], None]
REST_SECONDS = 10.0
"""How long learning waits at most, after a segment, for a device that is too warm: slowly it goes on all the same."""


class Job(Future[Any]):
    """Something that the worker does; ``result()`` waits for it and raises what went wrong."""

    def __init__(self, action: Callable[[Job], Any]) -> None:
        super().__init__()
        self.action = action
        self.first_segment_done = threading.Event()
        """Set when the first segment is learned, and when the job is done."""

    def cancel(self) -> bool:
        """Never: what is in the log is learned, whoever waits for it no more."""
        return False

    def perform(self) -> None:
        """Does it, in the thread that calls."""
        try:
            self.set_result(self.action(self))
        except BaseException as exc:  # it is raised where the result is asked for
            self.set_exception(exc)
        finally:
            self.first_segment_done.set()


class Worker:
    """The only thread that changes weights and fast memory while it runs.

    Parameters
    ----------
    adaptation : Adaptation
    idle_seconds : float or None
        After so long without anything to do, what was told is consolidated; None: never by itself.
        Once that is done the thread waits without using the processor.
    is_hot : callable
        Whether the device is too warm to learn now. What was told is in the log all the same.
    """

    def __init__(
        self, adaptation: Adaptation, idle_seconds: float | None = None, is_hot: Callable[[], bool] = lambda: False
    ) -> None:
        self._adaptation, self._idle_seconds, self._is_hot = adaptation, idle_seconds, is_hot
        self._cooled = threading.Event()
        """Set when nobody has time to wait any more."""
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._unfinished = 0
        self._mutex = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="edgelm-learning", daemon=True)
        self._thread.start()

    @property
    def is_resting(self) -> bool:
        """Whether learning waits for the device to cool down."""
        return self.is_busy and not self._closing and self._is_hot()

    @property
    def is_busy(self) -> bool:
        """Whether something is still to be learned or replayed."""
        return self._unfinished > 0

    def learn(self, entry: Entry, *, on_tokens: OnTokens = lambda _: None, report: bool = False) -> Job:
        """Learns an entry of the log after all that was asked for before."""

        def action(job: Job) -> Learned | None:
            def count(n_tokens: int) -> None:
                job.first_segment_done.set()
                on_tokens(n_tokens)
                self._rest()

            return self._adaptation.learn(entry, on_tokens=count, report=report)

        return self.call(action)

    def call(self, action: Callable[[Job], Any]) -> Job:
        """Lets the thread do something else with weights or memory."""
        job = Job(action)
        if self._closing:
            # The thread has ended, or is about to: nobody but the caller is left to do it.
            self._thread.join()
            job.perform()
            return job
        with self._mutex:
            self._unfinished += 1
        self._jobs.put(job)
        return job

    def _rest(self) -> None:
        """Between two segments, while the device is too warm."""
        waited = 0.0
        while waited < REST_SECONDS and self._is_hot() and not self._cooled.wait(_REST_STEP):
            waited += _REST_STEP

    def _run(self) -> None:
        while True:
            unconsolidated = self._idle_seconds is not None and self._adaptation.has_unconsolidated
            try:
                job = self._jobs.get(timeout=self._idle_seconds if unconsolidated else None)
            except queue.Empty:
                if self._is_hot():
                    continue
                job = Job(lambda _: self._adaptation.consolidate(self._is_wanted))
                job.perform()
                if job.exception() is not None:
                    self._idle_seconds = None  # the disk is full: it will be said at the next turn
                continue
            if job is None:
                return
            job.perform()
            with self._mutex:
                self._unfinished -= 1

    def _is_wanted(self) -> bool:
        return self._closing or self._unfinished > 0 or self._is_hot()

    def close(self) -> None:
        """Finishes what was asked for, and ends the thread; a consolidation is broken off."""
        if not self._closing:
            self._closing = True
            self._cooled.set()
            self._jobs.put(None)
        self._thread.join()


_REST_STEP = 0.5
