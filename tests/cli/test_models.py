"""``models``: what is here, whether it is whole, and how another one comes here."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgelm.model import hub
from tests.cli.conftest import Cli
from tests.command import assert_one_line
from tests.model.archives import HOSTILE, KINDS, members_of, pack
from tests.model_folder import contents, sign, write_tiny_model


class _Server(ThreadingHTTPServer):
    """Serves ``files`` by path; ``/moved`` leads to another address, ``/cut`` ends too early."""

    files: dict[str, bytes]
    asked: list[str]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path.startswith("/moved?"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved?"))
            self.end_headers()
            return
        blob = self.server.files.get(self.path)
        self.send_response(200 if blob is not None else 404)
        blob = blob or b""
        self.send_header("Content-Length", str(len(blob) + (9 if self.path.endswith("cut.tar.gz") else 0)))
        self.end_headers()
        self.wfile.write(blob)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    """An HTTP server on this machine."""
    monkeypatch.setenv("no_proxy", "*")
    with _Server(("127.0.0.1", 0), _Handler) as http:
        http.files, http.asked = {}, []
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield http
        finally:
            http.shutdown()
            thread.join()


def _url(server: _Server, path: str) -> str:
    return f"http://127.0.0.1:{server.server_port}{path}"


@pytest.fixture
def broken(home: Path, tiny_model: Path) -> Path:
    """A pulled model with two damaged files."""
    folder = shutil.copytree(tiny_model, home / "models" / "broken")
    (folder / "learning.safetensors").write_bytes(b"")
    (folder / "tokenizer.json").unlink()
    return Path(folder)


def test_list(cli: Cli, home: Path, tiny_model: Path) -> None:
    rows = cli("models", "list", "--json", model=None).json["models"]
    assert [row["name"] for row in rows] == hub.available()
    assert [row["default"] for row in rows] == [row["name"] == "small" for row in rows]
    assert not home.exists()
    cli("models", "pull", tiny_model, "--name", "mine", model=None)
    (home / "models" / ".pull-x").mkdir()
    rows = cli("models", "list", "--json", model=None).json["models"]
    row = rows[-1]
    assert (row["name"], row["where"], row["precision"]) == ("mine", "pulled", "int8")
    assert row["folder"] == str(home / "models" / "mine")
    assert row["parameters"] == hub.load(str(tiny_model)).n_parameters
    assert row["bytes"] == sum(map(len, contents(tiny_model).values()))
    lines = cli("models", "list", model=None).stdout.splitlines()
    assert len(lines) == len(rows)
    assert lines[0].endswith("bundled, the default")
    assert lines[-1].startswith("mine ") and lines[-1].endswith("pulled")


def test_list_with_one_that_is_damaged(cli: Cli, broken: Path) -> None:
    (broken / "config.json").write_text("{", encoding="utf-8")
    row = cli("models", "list", "--json", model=None).json["models"][-1]
    assert row["name"] == "broken" and "not readable as JSON" in row["problem"]
    assert "damaged" in cli("models", "list", model=None).stdout


def test_show(cli: Cli, tiny_model: Path) -> None:
    fields = cli("models", "show", "--json").json
    model = hub.load(str(tiny_model))
    assert (fields["name"], fields["sha256"], fields["parameters"]) == ("tiny", model.sha256, model.n_parameters)
    assert fields["shape"] == model.config.to_dict()
    assert (fields["awake_cap"], fields["where"]) == (0.5, "elsewhere")
    assert {file["name"]: file["sha256"] for file in fields["files"]} == {
        name: hashlib.sha256(blob).hexdigest() for name, blob in members_of(tiny_model).items()
    }
    assert cli("models", "show", tiny_model, "--json", model=None).json == fields
    bundled = cli("models", "show", "small", "--json").json
    assert bundled["tokens_trained"] > 0 and bundled["training_seconds"] > 0
    assert "A recurrent language model of" in cli("models", "show", model=None).stdout
    assert "no model 'nosuch'" in assert_one_line(cli("models", "show", "nosuch", model=None))


def test_a_card_cannot_steer_the_terminal(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "README.md").write_bytes(b"# Mine\n\x1b[2J\x07\tgone \xff\n")
    shown = cli("models", "show", folder, model=None).stdout
    assert "# Mine\n" in shown and r"\u0007" + "\tgone" in shown
    assert "\x1b" not in shown and "\x07" not in shown


def test_verify(cli: Cli, tiny_model: Path, home: Path) -> None:
    assert cli("models", "verify", "--json").json == {"models": [{"name": str(tiny_model), "ok": True, "problems": []}]}
    cli("models", "pull", tiny_model, model=None)
    done = cli("models", "verify", "tiny", tiny_model, model=None)
    assert (done.code, done.stderr) == (0, "")
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["ok", "ok"]


def test_verify_goes_through_all_and_names_every_problem(cli: Cli, tiny_model: Path, broken: Path) -> None:
    shutil.copytree(tiny_model, broken.parent / "whole")
    before = contents(broken.parent)
    done = cli("models", "verify", "--json", model=None)
    rows = {row["name"]: row for row in json.loads(done.stdout)["models"]}
    assert done.code == 1
    assert {name: row["ok"] for name, row in rows.items()} == {"small": True, "broken": False, "whole": True}
    assert len(rows["broken"]["problems"]) == 2
    assert [line[:8] for line in done.stderr.splitlines()] == ["edgelm: "] * 2
    done = cli("models", "verify", "nosuch", "broken", "whole", model=None)
    assert (done.code, len(done.stderr.splitlines())) == (1, 3)
    assert [line.split(maxsplit=1)[1] for line in done.stdout.splitlines()] == ["not ok", "not ok", "ok"]
    assert contents(broken.parent) == before


def test_pull_and_use(cli: Cli, tiny_model: Path, home: Path) -> None:
    fields = cli("models", "pull", tiny_model, "--name", "mine", "--json", model=None).json
    assert (fields["name"], fields["folder"], fields["new"]) == ("mine", str(home / "models" / "mine"), True)
    assert not cli("models", "pull", tiny_model, "--name", "mine", "--json", model=None).json["new"]
    assert "the same model" in cli("models", "pull", tiny_model, "--name", "mine", model=None).stdout
    for words in (
        ["complete", "The ferry", "-n", "2"], ["info"], ["profile", "show"], ["profile", "log"], ["models", "show"],
        ["evaluate", "--suite", "author", "-"], ["export", home / "out"],
    ):  # fmt: skip
        done = cli(*words, "--model", "mine", model=None, input="The ferry waits in the fog.\n" * 20)
        assert done.code == 0, done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_pull_an_archive(cli: Cli, tiny_model: Path, home: Path, tmp_path: Path, kind: str) -> None:
    path = pack(tmp_path / f"model.{kind}", members_of(tiny_model, "tiny/"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert "not the one given" in assert_one_line(cli("models", "pull", path, "--sha256", "0" * 64, model=None))
    assert not home.exists()
    assert cli("models", "pull", path, "--sha256", digest, "--json", model=None).json["new"]
    assert members_of(home / "models" / "tiny") == members_of(tiny_model)


@pytest.mark.parametrize("name", HOSTILE)
def test_pull_a_hostile_archive(cli: Cli, home: Path, tmp_path: Path, name: str) -> None:
    write, says = HOSTILE[name]
    write(tmp_path / name)
    assert says in assert_one_line(cli("models", "pull", tmp_path / name, model=None))
    assert list(tmp_path.iterdir()) == [tmp_path / name]


@pytest.mark.parametrize("file", [hub.MANIFEST, *hub.FILES])
def test_pull_what_was_altered(cli: Cli, home: Path, tiny_model: Path, tmp_path: Path, file: str) -> None:
    members = members_of(tiny_model)
    blob = bytearray(members[file])
    blob[len(blob) // 2] ^= 1
    path = tmp_path / "model.zip"
    for changed in ({**members, file: bytes(blob)}, {name: members[name] for name in members if name != file}):
        message = assert_one_line(cli("models", "pull", pack(path, changed), model=None))
        assert str(path) in message and ".pull-" not in message
        path.unlink()
        assert list(tmp_path.iterdir()) == []


def test_pull_what_is_signed_but_wrong(cli: Cli, home: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    other = write_tiny_model(tmp_path / "other", block_size=64)
    shutil.copy(other / "weights.safetensors", folder)
    sign(folder)
    assert "w1.q is uint8 (4, 64, 32), expected" in assert_one_line(cli("models", "pull", folder, model=None))
    assert not home.exists()


@pytest.mark.parametrize("kind", ["folder", *KINDS])
def test_what_there_is_no_memory_for_is_not_read(
    cli: Cli, home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("tensors were read")

    path = tiny_model if kind == "folder" else pack(tmp_path / f"model.{kind}", members_of(tiny_model))
    (tmp_path / "meminfo").write_text("MemAvailable: 1000 kB\n", encoding="ascii")
    monkeypatch.setattr("edgelm.ports.check_memory.__defaults__", (tmp_path / "meminfo",))
    monkeypatch.setattr("edgelm.model.tensorfile.read", read)
    message = assert_one_line(cli("models", "pull", path, model=None))
    assert f"{path} needs 181 MB of memory, 1 MB are free" in message
    assert not home.exists()
    done = cli("models", "verify", tiny_model, "small", "--json", model=None)
    assert (done.code, [row["ok"] for row in json.loads(done.stdout)["models"]]) == (1, [False, False])
    assert [line.partition(" MB of memory, ")[2][:5] for line in done.stderr.splitlines()] == ["1 MB "] * 2


def test_verify_does_not_read_what_is_too_large(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "config.json").write_bytes(b"[" * (1 << 20))
    done = cli("models", "verify", folder, model=None)
    assert done.code == 1
    assert "config.json: 1,048,576 bytes, larger than" in done.stderr


def test_a_taken_name(cli: Cli, home: Path, tiny_model: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other", seed=1)
    cli("models", "pull", tiny_model, model=None)
    before = contents(home)
    assert "another model is called 'tiny'" in assert_one_line(cli("models", "pull", other, model=None))
    assert "model name" in assert_one_line(cli("models", "pull", other, "--name", "../tiny", model=None))
    assert contents(home) == before
    assert [path.name for path in (home / "models").iterdir()] == ["tiny"]


def test_pull_from_an_address(cli: Cli, home: Path, tiny_model: Path, tmp_path: Path, server: _Server) -> None:
    blob = pack(tmp_path / "model.tar.gz", members_of(tiny_model, "tiny/")).read_bytes()
    server.files = {"/m/tiny.tar.gz": blob, "/m/cut.tar.gz": blob[:5000], "/m/page.html": b"<html>not here</html>"}
    for path, says in (
        ("/nosuch", "cannot be fetched (HTTP Error 404"),
        ("/m/page.html", "no tar, tar.gz or zip archive"),
        ("/m/cut.tar.gz", "the network gave 5,000 of 5,009 bytes"),
        ("/moved?file:///etc/passwd", "leads to one that is not https"),
    ):
        assert says in assert_one_line(cli("models", "pull", _url(server, path), model=None))
        assert not home.exists()
    digest = hashlib.sha256(blob).hexdigest()
    done = cli("models", "pull", _url(server, "/moved?/m/tiny.tar.gz"), "--sha256", digest, "--json", model=None)
    assert done.json["name"] == "tiny"
    assert server.asked[-2:] == ["/moved?/m/tiny.tar.gz", "/m/tiny.tar.gz"]
    assert members_of(home / "models" / "tiny") == members_of(tiny_model)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.tar", "http://", "https://[/a", "http://a b/"])
def test_an_address_that_leads_nowhere(cli: Cli, home: Path, url: str) -> None:
    assert "cannot be fetched" in assert_one_line(cli("models", "pull", url, model=None))
    assert not home.exists()


def test_nothing_is_fetched_unasked(cli: Cli, monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("urllib.request.OpenerDirector.open", refused)
    for words in (["list"], ["show"], ["verify"], ["pull", tiny_model]):
        assert cli("models", *words).code == 0
