"""The thread that learns: in order, whole updates only, and still when nothing is to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgelm.errors import ProfileError
from edgelm.learn.adaptation import Adaptation
from edgelm.learn.replay import Replay
from edgelm.learn.worker import Worker
from edgelm.log.entry import CHAT, CONSOLIDATION, TEXT
from edgelm.log.profile import Profile
from tests.learn.acts import close, open_adaptation

PATIENCE_SECONDS = 120
Start = Callable[..., tuple[Worker, Adaptation]]


@pytest.fixture
def start(tiny_model: Path, tmp_path: Path) -> Iterator[Start]:
    """``start("me", idle_seconds=0.1)``: a worker and what it works on."""
    started: list[tuple[Worker, Adaptation]] = []

    def run(
        name: str = "me", idle_seconds: float | None = None, is_hot: Callable[[], bool] = lambda: False
    ) -> tuple[Worker, Adaptation]:
        adaptation = open_adaptation(tiny_model, tmp_path / "profiles", name=name)
        adaptation.prepare()
        started.append((Worker(adaptation, idle_seconds, is_hot), adaptation))
        return started[-1]

    yield run
    for worker, adaptation in started:
        worker.close()
        close(adaptation)


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def _tell(worker: Worker, adaptation: Adaptation, text: str) -> None:
    worker.learn(adaptation.tell(CHAT, text, conversation=1)).result()


def test_everything_is_done_in_order(start: Start) -> None:
    worker, _ = start()
    done: list[int] = []
    gate = threading.Event()
    worker.call(lambda _: gate.wait(PATIENCE_SECONDS))
    jobs = [worker.call(lambda _, i=i: done.append(i)) for i in range(20)]
    assert worker.is_busy
    assert done == []
    gate.set()
    for job in jobs:
        job.result()
    assert done == list(range(20))
    _until(lambda: not worker.is_busy)


def test_it_learns_what_anybody_would(start: Start) -> None:
    worker, adaptation = start()
    _, other = start("other")
    counted: list[int] = []
    texts = ["One", "Two two", "Three three three"]
    jobs = []
    for text in texts:
        other.learn(other.tell(CHAT, text, conversation=1))
        entry = adaptation.tell(CHAT, text, conversation=1)
        jobs.append(worker.learn(entry, on_tokens=counted.append, report=True))
    results = [job.result() for job in jobs]
    assert [learned.tokens for learned in results] == counted
    assert all(job.first_segment_done.is_set() for job in jobs)
    assert adaptation.sha256 == other.sha256


def test_a_job_has_begun_well_with_its_first_segment(start: Start) -> None:
    worker, adaptation = start()
    seen, gate = threading.Event(), threading.Event()

    def wait(_: int) -> None:
        seen.set()
        gate.wait(PATIENCE_SECONDS)

    entry = adaptation.tell(TEXT, "The ferry waits in the fog. " * 10, conversation=1)
    job = worker.learn(entry, on_tokens=wait)
    assert seen.wait(PATIENCE_SECONDS)
    assert job.first_segment_done.is_set()
    assert not job.done()
    gate.set()
    job.result()


@pytest.mark.parametrize("error", [ProfileError("the disk is full"), KeyError("x"), KeyboardInterrupt()])
def test_what_goes_wrong_is_raised_where_the_result_is_asked_for(start: Start, error: BaseException) -> None:
    worker, adaptation = start()

    def fail(_: object) -> None:
        raise error

    job = worker.call(fail)
    with pytest.raises(type(error)):
        job.result()
    assert job.first_segment_done.is_set()
    # The thread goes on.
    assert worker.call(lambda _: 7).result() == 7
    _tell(worker, adaptation, "Hello")


def test_the_end_finishes_what_was_asked_for(start: Start) -> None:
    worker, adaptation = start()
    entries = [adaptation.tell(CHAT, f"Number {i}", conversation=1) for i in range(5)]
    jobs = [worker.learn(entry) for entry in entries]
    worker.close()
    assert all(job.done() for job in jobs)
    worker.close()
    # Whatever comes later is done at once.
    assert worker.call(lambda _: threading.current_thread().name).result() == threading.current_thread().name


def test_what_was_told_is_consolidated_when_nobody_speaks(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, adaptation = start(idle_seconds=0.02)
    _tell(worker, adaptation, "My boat is called Heron.")
    _until(lambda: adaptation.entries[-1].kind == CONSOLIDATION and not adaptation.has_unconsolidated)
    assert [entry.kind for entry in adaptation.entries] == [CHAT, CONSOLIDATION]

    # And then there is peace: the thread waits, and does not wake to look again and again.
    looked: list[int] = []
    unconsolidated = Adaptation.has_unconsolidated.fget
    counting = property(lambda found: looked.append(1) or unconsolidated(found))  # type: ignore[misc]
    monkeypatch.setattr(Adaptation, "has_unconsolidated", counting)
    worker.call(lambda _: None).result()
    _until(lambda: bool(looked))
    time.sleep(0.3)
    assert len(looked) <= 2  # once it may have been about to, when the counting began
    assert len(adaptation.entries) == 2


def test_nothing_is_consolidated_by_itself_where_nobody_asked(start: Start) -> None:
    worker, adaptation = start()
    _tell(worker, adaptation, "My boat is called Heron.")
    time.sleep(0.1)
    assert [entry.kind for entry in adaptation.entries] == [CHAT]
    assert adaptation.has_unconsolidated


@pytest.mark.parametrize("how", ["close", "call"])
def test_a_consolidation_is_broken_off(start: Start, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    worker, adaptation = start(idle_seconds=0.02)
    begun, gate, learn = threading.Event(), threading.Event(), Replay._learn_weights
    calls: list[int] = []

    def slow(replay: Replay, *args: object) -> np.ndarray:
        calls.append(1)
        if len(calls) == 4:  # within the consolidation, after three turns
            begun.set()
            gate.wait(PATIENCE_SECONDS)
        return learn(replay, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Replay, "_learn_weights", slow)
    for text in ("One", "Two", "Three"):
        worker.learn(adaptation.tell(CHAT, text, conversation=1))
    assert begun.wait(PATIENCE_SECONDS)
    if how == "call":
        job = worker.call(lambda _: adaptation.entries[-1].amount)
        gate.set()
        assert job.result() == 1
    else:
        closing = threading.Thread(target=worker.close)
        closing.start()
        _until(lambda: worker._closing)
        gate.set()
        closing.join(PATIENCE_SECONDS)
        assert not closing.is_alive()
    entry = next(entry for entry in adaptation.entries if entry.kind == CONSOLIDATION)
    assert entry.amount == 1
    assert adaptation.has_unconsolidated or how == "call"


def test_a_consolidation_that_fails_is_not_tried_again_and_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, adaptation = start(idle_seconds=0.01)
    calls: list[int] = []

    def full(*_: object, **__: object) -> None:
        calls.append(1)
        raise ProfileError("the disk is full")

    entry = adaptation.tell(CHAT, "Hello", conversation=1)
    monkeypatch.setattr(Profile, "append", full)
    worker.learn(entry).result()
    _until(lambda: bool(calls))
    time.sleep(0.1)
    assert len(calls) == 1
    assert worker.call(lambda _: 7).result() == 7


@pytest.mark.jit_only
def test_readers_meet_whole_updates_only(start: Start) -> None:
    worker, adaptation = start()
    weights = {name: adaptation.model.weights[name] for name in adaptation.base}
    known: set[bytes] = set()
    seen: list[bytes] = []

    def state() -> bytes:
        with adaptation.guard:
            return b"".join(weights[name].tobytes() for name in sorted(weights))

    # Each segment is one update: only the states between them may be seen.
    known.add(state())
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            seen.append(state())

    readers = [threading.Thread(target=look) for _ in range(2)]
    entry = adaptation.tell(TEXT, "The ferry waits in the fog for the baker. " * 20, conversation=1)
    for reader in readers:
        reader.start()
    _until(lambda: bool(seen))
    worker.learn(entry, on_tokens=lambda _: known.add(state())).result()
    _until(lambda: seen[-1] == state())
    ended.set()
    for reader in readers:
        reader.join()
    assert len(known) > 5
    assert len(set(seen)) > 1
    assert set(seen) <= known


def test_a_hot_device_rests_between_segments_until_it_is_closed(start: Start) -> None:
    heat = threading.Event()
    heat.set()
    worker, adaptation = start(idle_seconds=0.01, is_hot=heat.is_set)
    job = worker.learn(adaptation.tell(CHAT, "The ferry waits in the fog for the baker. " * 5, conversation=1))
    assert job.first_segment_done.wait(PATIENCE_SECONDS)
    assert not job.done() and worker.is_resting, "ten seconds a segment"
    heat.clear()
    assert job.result() is None or job.done()
    assert not worker.is_resting
    _until(lambda: not adaptation.has_unconsolidated)
    heat.set()
    job = worker.learn(adaptation.tell(CHAT, "The captain waits for the baker. " * 5, conversation=1))
    assert job.first_segment_done.wait(PATIENCE_SECONDS)
    time.sleep(0.05)
    n_entries = len(adaptation.entries)
    worker.close()
    assert job.done() and len(adaptation.entries) == n_entries


def test_a_hot_device_does_not_consolidate_by_itself(start: Start) -> None:
    heat = threading.Event()
    worker, adaptation = start(idle_seconds=0.01)
    worker._is_hot = heat.is_set  # from now on
    _tell(worker, adaptation, "The ferry waits in the fog.")
    _until(lambda: not adaptation.has_unconsolidated)
    heat.set()
    worker.learn(adaptation.tell(CHAT, "The baker too.", conversation=1))
    time.sleep(0.2)
    kinds = [entry.kind for entry in adaptation.entries]
    assert kinds == [CHAT, CONSOLIDATION, CHAT]
    heat.clear()
    _until(lambda: not adaptation.has_unconsolidated)
