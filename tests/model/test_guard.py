"""Readers and the writer of the weights."""

from __future__ import annotations

import threading

import numpy as np

from edgelm.model.guard import Guard
from tests.tiny import tiny_config


def test_what_was_written_is_counted() -> None:
    config = tiny_config()
    guard = Guard(config)
    assert guard.versions.shape == (config.n_layers, config.n_blocks) and not guard.versions.any()
    with guard:
        pass
    assert not guard.versions.any()
    with guard.writing():
        pass
    assert (guard.versions == 1).all()
    awake = np.zeros(guard.versions.shape, bool)
    awake[1, 3] = True
    with guard.writing(awake):
        pass
    assert (guard.versions == 1 + awake).all()


def test_it_shuts_others_out_and_its_holder_in() -> None:
    guard, entered, seen = Guard(tiny_config()), threading.Event(), []

    def read() -> None:
        entered.set()
        with guard:
            seen.append("read")

    with guard.writing(), guard, guard.writing():
        reader = threading.Thread(target=read)
        reader.start()
        entered.wait()
        reader.join(0.05)
        seen.append("written")
    reader.join()
    assert seen == ["written", "read"]


def test_a_writer_that_fails_lets_go_and_counts() -> None:
    guard = Guard(tiny_config())
    try:
        with guard.writing():
            raise ValueError
    except ValueError:
        pass
    assert (guard.versions == 1).all()
    with guard:
        pass
