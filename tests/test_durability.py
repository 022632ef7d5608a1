"""Kills and failing disks: what was acknowledged is never lost, and the next run is a good one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgelm.errors import ProfileError
from edgelm.learn.adaptation import Adaptation
from edgelm.log.entry import CHAT
from edgelm.log.profile import Profile
from edgelm.runtime import Engine, EngineOptions
from tests.command import ROOT, Result, assert_one_line, run_cli

pytestmark = pytest.mark.jit_only


def _measure(*args: str) -> dict[str, Any]:
    """What a tool prints, in a process of its own: it forks, and may have no threads before."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *args, "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.stdout, done.stderr
    fields: dict[str, Any] = json.loads(done.stdout)
    assert fields["failures"] == []
    assert done.returncode == 0, done.stderr
    return fields


def test_kills() -> None:
    fields = _measure("tools.measure.kills", "--kills", "25", "--seed", "1")
    assert fields["kills"] == 25
    assert fields["acknowledged"] > 10
    assert fields["lost"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the calls of the disk are replaced as Linux has them")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc) to compile what lets the disk fail")
def test_every_call_that_fails() -> None:
    fields = _measure("tools.measure.faults", "--each", "one", "--stride", "11")
    assert all(count > 2 for count in fields["cases"].values())
    assert fields["exit_codes"]["full disk: 1"] > 2


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_reading_where_nothing_can_be_written(home: Path, tiny_model: Path, tmp_path: Path, how: str) -> None:
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", str(home)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a disk with little room")

    def run(*args: str, text: str = "") -> Result:
        return run_cli([*args, "--json", "--model", str(tiny_model)], text)

    try:
        assert run("chat", "--max-tokens", "1", text="The ferry waits.\n").code == 0
        if how == "full":
            with (home / "fill").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(512))
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        (tmp_path / "a.txt").write_text("The baker is on board.\n", encoding="utf-8")
        for args in (["chat", "--max-tokens", "1"], ["adapt", str(tmp_path / "a.txt")], ["profile", "forget", "1"]):
            line = assert_one_line(run(*args, text="Hello\n"))
            assert any(reason in line for reason in ("the disk is full", "Read-only file system"))
            assert "damaged" not in line
        assert run("profile", "log").json_lines[0]["text"] == "The ferry waits."
        assert run("chat", "--no-learn", "--max-tokens", "1", text="Hello\n").code == 0
        assert run("evaluate", str(tmp_path / "a.txt")).code == 0
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)


def _stop_after_one() -> Callable[[], bool]:
    answers = iter([False])
    return lambda: next(answers, True)


@pytest.mark.parametrize(
    ("fails", "action"),
    [
        ("change", lambda adaptation: adaptation.consolidate(_stop_after_one())),
        ("append", lambda adaptation: adaptation.write_checkpoint()),
        ("write_checkpoint", lambda adaptation: adaptation.write_checkpoint()),
        ("_tidy", lambda adaptation: adaptation.remove([1])),
    ],
    ids=["consolidation broken off", "checkpoint", "weights", "forgetting"],
)
def test_a_session_goes_on_after_the_disk_failed(
    home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, fails: str, action: Callable[[Adaptation], object]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ProfileError("the disk is full")

    with Engine(EngineOptions(str(tiny_model)), writable=True) as engine:
        adaptation = engine.adaptation
        for text in ("The ferry waits in the fog.", "The baker is the first on board."):
            adaptation.learn(adaptation.tell(CHAT, text, conversation=1))
        with monkeypatch.context() as patch:
            patch.setattr(Profile, fails, fail)
            with pytest.raises(ProfileError):
                action(adaptation)
        adaptation.catch_up()
        adaptation.learn(adaptation.tell(CHAT, "The lamps are lit.", conversation=1))
        adaptation.write_checkpoint()
    after = _learned(tiny_model)
    for path in (home / "profiles").glob("*.weights-*"):
        path.unlink()
    assert after == _learned(tiny_model)


@pytest.mark.parametrize("comes", [True, False], ids=["later", "never"])
def test_what_was_told_is_learned_before_what_follows_is_written(home: Path, tiny_model: Path, comes: bool) -> None:
    with Engine(EngineOptions(str(tiny_model)), writable=True) as engine:
        adaptation = engine.adaptation
        adaptation.learn(adaptation.tell(CHAT, "The ferry waits in the fog.", conversation=1))
        entry = adaptation.tell(CHAT, "The baker is the first on board.", conversation=1)
        adaptation.consolidate()  # as the learning thread may in this very moment
        if comes:
            adaptation.learn(entry)
        adaptation.write_checkpoint()
    after = _learned(tiny_model)
    for path in (home / "profiles").glob("*.weights-*"):
        path.unlink()
    assert after == _learned(tiny_model)


def _learned(model: Path) -> str:
    """Identifies what the profile has learned, when it is opened anew."""
    with Engine(EngineOptions(str(model))) as engine:
        engine.adaptation.catch_up()
        return engine.adaptation.sha256
