"""The way between server and devices: whole messages, bounds, and whatever strangers send."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="the swarm needs Flower: pip install 'edgelm[swarm]'")

from edgelm.errors import DeviceError, InputError
from edgelm.swarm.connection import Connection, checked_address
from edgelm.swarm.flower import ConfigRecord, Message, RecordDict
from edgelm.swarm.link import STATUS, Link, LinkGrid, Listening
from edgelm.swarm.wire import DECLINED, MOST_FRAME, MOST_UPDATE, PACK, RECORD, UPDATE
from tests.command import ROOT
from tests.swarm.linked import address_of, ask, asking, connect, declining, linked, updating


@pytest.fixture(scope="module")
def link() -> Iterator[Link]:
    with linked() as made:
        yield made


def test_messages_arrive_whole(link: Link) -> None:
    blob = bytes(range(256)) * 1000
    answers = ask(link, [lambda message: updating(message, blob), lambda message: updating(message, b"")])
    assert sorted(len(answer.content[RECORD][UPDATE]) for answer in answers) == [0, len(blob)]
    assert {answer.content[RECORD][UPDATE] for answer in answers} == {blob, b""}


def test_a_device_may_decline(link: Link) -> None:
    (answer,) = ask(link, [lambda message: declining(message, DECLINED)])
    assert answer.has_error()
    assert answer.error.code == DECLINED
    assert not answer.error.reason


def test_a_round_goes_on_without_those_that_are_gone(link: Link) -> None:
    answers = ask(link, [updating, lambda message: None, updating])
    assert sorted(answer.has_error() for answer in answers) == [False, False, True]


def test_an_answer_after_its_round_is_refused(link: Link) -> None:
    grid = LinkGrid(link)
    with connect(link) as device:
        grid.push_messages([asking(node) for node in grid.get_node_ids()])
        message = device.receive()
        grid.close()
        with pytest.raises(DeviceError, match="refuses"):
            device.send(updating(message))
        later = LinkGrid(link)
        assert list(later.pull_messages([])) == []
        later.close()


def test_a_device_cannot_answer_for_another(link: Link) -> None:
    grid = LinkGrid(link)
    with connect(link) as one, connect(link) as other:
        grid.push_messages([asking(node) for node in grid.get_node_ids()])
        message = one.receive()
        assert message is not None
        answer = updating(message, b"of another")
        answer.metadata.__dict__["_src_node_id"] = other._node.node_id
        other.send(answer)
        assert [found for found in grid.pull_messages([message.metadata.message_id]) if found.has_content()] == []
    grid.close()


def _status(url: str, body: bytes | None = None, kind: str = "application/protobuf") -> int:
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as exc:
        return int(exc.code)


def test_nobody_can_hand_it_a_program(link: Link) -> None:
    for path in (
        "control/start-run",
        "fleet/get-fab",
        "fleet/get-run",
        "runtime/acquire-task",
        "runtime/push-messages",
    ):
        assert _status(f"{link.url}/v1/{path}", b"") == 404, path
    for path in ("/docs", "/openapi.json", "/", "/v1/fleet/../control/start-run"):
        assert _status(link.url + path) == 404, path
    assert _status(link.url + STATUS) == 200


def test_a_device_asks_for_no_program() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "edgelm" / "swarm").glob("*.py"))
    assert "PullMessages" in source
    for name in ("GetFab", "get_fab", "load_app", "start_client_internal", "get_fused_config_from_fab", "subprocess"):
        assert name not in source


def test_calls_are_bounded(link: Link) -> None:
    assert _status(f"{link.url}/v1/fleet/push-messages", b"x" * (MOST_FRAME + 1)) == 413
    assert _status(f"{link.url}/v1/fleet/push-object", b"x" * (MOST_UPDATE + MOST_FRAME + 1)) == 413


@pytest.mark.parametrize("call", ["register-node", "activate-node", "push-messages", "push-object", "pull-messages"])
def test_noise_is_refused(link: Link, call: str) -> None:
    for body in (b"", b"\xff" * 40, b"\x0a\x05hello", bytes(range(256))):
        assert 400 <= _status(f"{link.url}/v1/fleet/{call}", body) < 500
    assert 400 <= _status(f"{link.url}/v1/fleet/{call}", b"{}", "application/json") < 500


def test_a_port_in_use_is_said(link: Link) -> None:
    host, _, port = address_of(link).rpartition(":")
    with pytest.raises(DeviceError, match="cannot listen there"):
        Link(Listening(host, int(port)), dict)


@pytest.mark.parametrize("text", ["", "here", "here:0", "here:99999", "a b:80", "http://a:80", "[::g]:80", "a@b:80"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InputError, match="no address"):
        checked_address(text)


@pytest.mark.parametrize("text", ["localhost:8430", "192.168.1.5:1", "[::1]:65535"])
def test_what_is_an_address(text: str) -> None:
    assert checked_address(text) == text


@contextmanager
def _stranger(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[tuple[str, list[str]]]:
    """A server that answers every call so; its address and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _say(handler: http.server.BaseHTTPRequestHandler, code: int, headers: dict[str, str], body: bytes) -> None:
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.mark.parametrize(
    ("code", "headers", "body"),
    [
        (200, {}, b"\xff" * 50),
        (200, {}, b"x" * 200_000),
        (200, {"content-encoding": "gzip"}, b"\x1f\x8b" + bytes(50)),
        (204, {}, b""),
        (404, {}, b"no"),
        (500, {}, b"no"),
    ],
    ids=["noise", "long", "compressed", "nothing", "unknown", "broken"],
)
def test_a_stranger_is_no_server(code: int, headers: dict[str, str], body: bytes) -> None:
    with (
        _stranger(lambda handler: _say(handler, code, headers, body)) as (address, _),
        pytest.raises(DeviceError, match=r"^127\.0\.0\.1:\d+: [^\n]+$"),
        Connection(address, 1000, None, 10.0) as device,
    ):
        device.receive()


def test_redirections_are_not_followed() -> None:
    with _stranger(lambda handler: _say(handler, 200, {}, b"")) as (elsewhere, asked):
        where = {"location": f"http://{elsewhere}/v1/fleet/register-node"}
        with (
            _stranger(lambda handler: _say(handler, 307, where, b"")) as (address, _),
            pytest.raises(DeviceError, match="refuses"),
        ):
            Connection(address, 1000, None, 10.0)
        assert asked == []


def test_nobody_there_is_one_line() -> None:
    with linked() as gone:
        address = address_of(gone)
    with pytest.raises(DeviceError, match="no answer from the server"):
        Connection(address, 1000, None, 10.0)


def test_a_message_longer_than_any_may_be_is_not_read(link: Link) -> None:
    grid = LinkGrid(link)
    with connect(link, most=1000) as device:
        grid.push_messages([asking(node, pack=bytes(50_000)) for node in grid.get_node_ids()])
        with pytest.raises(DeviceError, match="no answer"):
            device.receive()
    grid.close()


def test_a_message_of_many_parts_is_not_read(link: Link) -> None:
    grid = LinkGrid(link)
    with connect(link) as device:
        records = RecordDict({f"r{i}": ConfigRecord({PACK: bytes([i])}) for i in range(20)})
        grid.push_messages([Message(records, node, "train", ttl=60) for node in grid.get_node_ids()])
        with pytest.raises(InputError, match="cannot be read"):
            device.receive()
    grid.close()


def _certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and its key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(pem))
    paths[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return paths


def test_with_tls_only_the_right_server_will_do(tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path, "one")
    other, _ = _certificate(tmp_path, "other")
    link = Link(Listening(certificate=certificate, key=key), dict)
    try:
        assert link.url.startswith("https://")
        with Connection(address_of(link), 1000, certificate, 10.0) as device:
            assert device.receive() is None
        for root in (other, None):
            with pytest.raises(DeviceError, match="no answer from the server"):
                Connection(address_of(link), 1000, root, 10.0)
    finally:
        link.close()
    with pytest.raises(DeviceError, match="cannot listen there"):
        Link(Listening(certificate=tmp_path / "missing.pem", key=key), dict)


def test_flower_is_asked_to_be_silent() -> None:
    script = """
import sys
asked = []
sys.addaudithook(lambda event, args: asked.append(event) if event in ("socket.connect", "socket.getaddrinfo") else None)
import edgelm.swarm.server, edgelm.swarm.joining
from flwr.supercore import telemetry, update_check
assert telemetry.FLWR_TELEMETRY_ENABLED == "0"
update_check.warn_if_flwr_update_available(process_name="flower-superlink")
telemetry.event(telemetry.EventType.PING).result()
print(asked)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
