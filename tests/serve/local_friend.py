"""A server of OpenAI's API on this machine, that keeps what it was sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = {"data": [{"id": "large-one"}, {"id": "another"}]}


def answer(text: Any) -> bytes:
    """A whole answer of OpenAI's API."""
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@dataclass
class LocalFriend:
    """What it says, and what it was sent.

    Attributes
    ----------
    says : bytes
        The body of each answer.
    act : callable, optional
        Answers instead, however it likes.
    bodies, requests : list
        What was posted, and method, path and headers of each request.
    """

    url: str = ""
    says: bytes = field(default_factory=lambda: answer("A heron is a bird."))
    status: int = 200
    act: Callable[[BaseHTTPRequestHandler], None] | None = None
    bodies: list[Any] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    @property
    def sent(self) -> list[list[tuple[str, str]]]:
        """The messages of each question, without the first, which is the system's."""
        return [[(m["role"], m["content"]) for m in body["messages"][1:]] for body in self.bodies]


@contextmanager
def local_friend() -> Iterator[LocalFriend]:
    """One that listens as long as the context lasts."""
    friend = LocalFriend()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            friend.requests.append(("GET", self.path, dict(self.headers)))
            self._send(200, json.dumps(MODELS).encode())

        def do_POST(self) -> None:
            friend.requests.append(("POST", self.path, dict(self.headers)))
            friend.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if friend.act is not None:
                friend.act(self)
            else:
                self._send(friend.status, friend.says)

        def _send(self, status: int, blob: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(blob)))
            self.end_headers()
            self.wfile.write(blob)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Whoever asks may hang up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        friend.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield friend
        finally:
            server.shutdown()
            thread.join()
