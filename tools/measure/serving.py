"""``edgelm serve`` beside ``edgelm chat``: memory, what a kept conversation saves, and a crowd of clients on loopback.

``python -m tools.measure.serving memory|kept|crowd``

memory
    Resident megabytes of ``chat`` and of ``serve`` after the same turns, in turns, the median of several runs.
kept
    A conversation that grows: milliseconds until the answer to the same short turn, where the server has kept what was
    read, and where it must read it again.
crowd
    Clients of many kinds for a while: honest ones, and those that send slowly, read slowly, send too much, nonsense or
    nothing, leave early, or hold connections open. It says how the honest ones were served, and what became of the
    server's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

HOST = "127.0.0.1"
TURNS = ("Hello, how are you today?", "I went down to the harbour this morning.", "What should I cook for dinner?")


@contextlib.contextmanager
def server(*options: str) -> Iterator[tuple[int, int]]:
    """``edgelm serve`` with an empty profile; yields its port and process id."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "EDGELM_HOME": home}
        command = [sys.executable, "-m", "edgelm", "serve", "--port", "0", "--json", *options]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            port = int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
            yield port, process.pid
            assert process.poll() is None, "the server has ended by itself"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def resident_mb(pid: int, name: str = "VmRSS") -> float:
    """Megabytes that a process has."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1e3
    raise OSError(f"/proc/{pid}/status has no {name}")


def post(port: int, path: str, body: object) -> dict[str, object]:
    """The answer to a request, as JSON."""
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    found: dict[str, object] = json.loads(connection.getresponse().read())
    connection.close()
    return found


def memory(runs: int) -> dict[str, float]:
    """Megabytes of both."""
    chats, served = [], []
    for _ in range(runs):
        with server() as (port, pid):
            for text in TURNS:
                post(port, "/v1/chat/completions", {"messages": [{"role": "user", "content": text}], "user": "one"})
            served.append(resident_mb(pid, "VmHWM"))
        with tempfile.TemporaryDirectory() as home:
            environment = {**os.environ, "EDGELM_HOME": home}
            command = [sys.executable, "-m", "edgelm", "chat", "--no-learn", "--json"]
            chat = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert chat.stdin is not None
            assert chat.stdout is not None
            for text in TURNS:
                chat.stdin.write(text.encode() + b"\n")
                chat.stdin.flush()
                chat.stdout.readline()
            chats.append(resident_mb(chat.pid, "VmHWM"))
            chat.communicate()
    chat_mb, serve_mb = statistics.median(chats), statistics.median(served)
    return {"chat_mb": chat_mb, "serve_mb": serve_mb, "more_mb": round(serve_mb - chat_mb, 1)}


def kept(runs: int) -> list[dict[str, float]]:
    """Milliseconds of a turn after so many earlier ones."""
    rows = []
    with server("--no-bank") as (port, _):
        for n_turns in (4, 16, 64, 256):
            with_state, without = [], []
            for run in range(runs):
                said = [f"This is remark {i} of talk {run}, about the weather and the sea." for i in range(n_turns)]
                turns = [m for t in said for m in (_message("user", t), _message("assistant", "I see."))]
                for times, user in ((without, f"{run} new"), (with_state, f"{run} new")):
                    # The first of both reads the conversation; the second goes on where it was left.
                    body = {"messages": [*turns, _message("user", "Go on.")], "user": user, "max_tokens": 1, "seed": 1}
                    begun = time.perf_counter()
                    answer = post(port, "/v1/chat/completions", body)
                    times.append(1000 * (time.perf_counter() - begun))
                    reply = answer["choices"][0]["message"]["content"]  # type: ignore[index]
                    turns += [_message("user", "Go on."), _message("assistant", reply)]
            rows.append({
                "turns": n_turns, "read_again_ms": round(statistics.median(without), 1),
                "kept_ms": round(statistics.median(with_state), 1),
            })  # fmt: skip
    return rows


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


class Crowd:
    """Clients of many kinds."""

    def __init__(self, port: int, seconds: float) -> None:
        self._port, self._end = port, time.monotonic() + seconds
        self.counts: Counter[str] = Counter()
        self.latencies: list[float] = []
        self._rng = random.Random(1)

    @property
    def goes_on(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self._end

    def _head(self, path: str = "/v1/chat/completions", **headers: str) -> bytes:
        lines = [f"POST {path} HTTP/1.1", f"Host: {HOST}:{self._port}", "Content-Type: application/json"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def _request(self, body: object, **headers: str) -> bytes:
        blob = json.dumps(body).encode()
        return self._head(Content_Length=str(len(blob)), **headers) + blob

    async def honest(self) -> None:
        """Asks, reads the answer, waits a little; tries again where it got none, as clients do."""
        while self.goes_on:
            begun = time.monotonic()
            text = self._rng.choice(TURNS)
            body = {"messages": [_message("user", text)], "max_tokens": 24, "stream": self._rng.random() < 0.5}
            for _ in range(5):
                status = await self._asked(self._request(body, Connection="close"))
                if status == 200:
                    break
                self.counts[f"honest: {status}, tried again"] += 1
                await asyncio.sleep(2)
            self.counts[f"honest: {status}"] += 1
            if status == 200:
                self.latencies.append(time.monotonic() - begun)
            await asyncio.sleep(self._rng.uniform(0.5, 3))

    async def _asked(self, request: bytes) -> int | str:
        """The status, or why there is none."""
        try:
            reader, writer = await asyncio.open_connection(HOST, self._port)
        except OSError:
            return "no connection"
        try:
            writer.write(request)
            async with asyncio.timeout(60):
                found = await reader.read()
            return int(found[9:12]) if found.startswith(b"HTTP/1.1 ") else "closed without an answer"
        except OSError:
            return "cut"
        except TimeoutError:
            return "no answer in a minute"
        finally:
            writer.transport.abort()

    async def _hostile(self, act: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        while self.goes_on:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(max(0.1, self._end - time.monotonic())):
                    reader, writer = await asyncio.open_connection(HOST, self._port)
                    try:
                        await act(reader, writer)
                    finally:
                        writer.transport.abort()
            self.counts["hostile connections"] += 1
            await asyncio.sleep(self._rng.uniform(0.05, 1))

    async def slow_head(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A byte now and then."""
        for byte in self._head(X_Pad="x" * 4000):
            if reader.at_eof() or writer.transport.is_closing():
                return
            writer.write(bytes([byte]))
            await asyncio.sleep(0.5)

    async def slow_body(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A body that does not come."""
        writer.write(self._head(Content_Length="100000") + b"{")
        await reader.read()

    async def slow_reader(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Asks for much and takes nothing."""
        writer.write(self._request({"prompt": "The sea", "max_tokens": 4096, "stream": True}))
        await asyncio.sleep(30)

    async def leaves(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Asks, and leaves."""
        writer.write(self._request({"messages": [_message("user", TURNS[0])], "stream": True}))
        await asyncio.sleep(self._rng.uniform(0, 0.2))

    async def nonsense(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Bytes at random."""
        writer.write(self._rng.randbytes(self._rng.randrange(1, 70_000)))
        await reader.read()

    async def too_much(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A head or a body without an end."""
        if self._rng.random() < 0.5:
            writer.write(self._head(Transfer_Encoding="chunked"))
            block = b"10000\r\n" + b" " * 65536 + b"\r\n"
        else:
            writer.write(b"GET / HTTP/1.1\r\n")
            block = b"X-Header: " + b"y" * 8000 + b"\r\n"
        for _ in range(200):
            if reader.at_eof() or writer.transport.is_closing():
                return
            writer.write(block)
            await writer.drain()

    async def bad_json(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Deep, wrong, or of other types."""
        deep = b"[" * 100_000
        body = self._rng.choice([deep, b"{}", b'{"messages": 3}', b"\xff\xfe", b'{"messages":[{"role":"user"}]}'])
        writer.write(self._head(Content_Length=str(len(body)), Connection="close") + body)
        await reader.read()

    async def holds(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection, and nothing else."""
        await reader.read()

    async def rebinds(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As a page of another name."""
        writer.write(b"GET /edgelm/v1/log HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        if b" 200 " in (await reader.read())[:20]:
            self.counts["another name was answered"] += 1

    async def run(self, n_clients: int, only: str = "") -> None:
        """All of them: a fifth is honest."""
        kinds = [getattr(self, only)] if only else [
            self.slow_head, self.slow_body, self.slow_reader, self.leaves, self.nonsense, self.too_much, self.bad_json,
            self.holds, self.rebinds,
        ]  # fmt: skip
        n_honest = n_clients // 5
        clients = [self.honest() for _ in range(n_honest)]
        clients += [self._hostile(kinds[i % len(kinds)]) for i in range(n_clients - n_honest)]
        await asyncio.gather(*clients)


def crowd(seconds: float, n_clients: int, only: str) -> dict[str, object]:
    """What became of the honest, and of the server."""
    with server() as (port, pid):
        for text in TURNS:
            post(port, "/v1/chat/completions", {"messages": [_message("user", text)]})
        before = resident_mb(pid)
        clients = Crowd(port, seconds)
        asyncio.run(clients.run(n_clients, only))
        after, peak = resident_mb(pid), resident_mb(pid, "VmHWM")
        post(port, "/v1/chat/completions", {"messages": [_message("user", TURNS[0])]})
    times = sorted(clients.latencies)
    return {
        "seconds": seconds, "clients": n_clients, **dict(sorted(clients.counts.items())),
        "honest_median_s": round(statistics.median(times), 2), "honest_95th_s": round(times[int(0.95 * len(times))], 2),
        "mb_before": before, "mb_after": after, "mb_peak": peak,
    }  # fmt: skip


def main() -> None:
    """Prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "kept", "crowd"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--only", default="", metavar="KIND", help="Of the hostile kinds this one alone.")
    args = parser.parse_args()
    found: object
    if args.what == "memory":
        found = memory(args.runs)
    elif args.what == "kept":
        found = kept(args.runs)
    else:
        found = crowd(args.seconds, args.clients, args.only)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
