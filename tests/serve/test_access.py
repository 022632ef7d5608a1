"""Who may ask."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from edgelm.errors import ConfigError
from edgelm.serve.access import PREFIX, Access, Keys
from edgelm.serve.http import Request, RequestError
from tests.serve.conftest import Start


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """With a key for ``default`` and one for ``ann``."""
    found = Keys(tmp_path / "serve.keys", "default")
    found.add("ann")
    return found


def _request(peer: str = "127.0.0.1", **headers: str) -> Request:
    given = {"host": "localhost:8420"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("GET", "/", {}, given, b"", peer)


def _status(access: Access, request: Request) -> int:
    try:
        access.profile_of(request)
    except RequestError as exc:
        return exc.status
    return 200


def test_whoever_is_on_this_device_needs_no_key(keys: Keys) -> None:
    access = Access(keys, "mine")
    for peer in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert access.profile_of(_request(peer)) == "mine"
    assert access.profile_of(_request(authorization="Bearer none")) == "mine", (
        "clients that insist on one send any word"
    )


@pytest.mark.parametrize("peer", ["192.168.1.7", "8.8.8.8", "fe80::1%eth0", "::ffff:10.0.0.1", ""])
def test_whoever_is_elsewhere_does(keys: Keys, peer: str) -> None:
    access = Access(keys, "mine")
    assert _status(access, _request(peer)) == 401
    assert _status(access, _request(peer, authorization=f"Bearer {PREFIX}guessed")) == 401
    assert access.profile_of(_request(peer, authorization=f"Bearer {keys.of('ann')}")) == "ann"


def test_a_key_may_be_given_as_clients_give_it(keys: Keys) -> None:
    access, key = Access(keys, "mine", needs_key=True), keys.of("ann")
    assert _status(access, _request()) == 401
    basic = base64.b64encode(f"anybody:{key}".encode()).decode()
    for headers in ({"authorization": f"bearer {key}"}, {"authorization": f"Basic {basic}"}, {"x_api_key": key}):
        assert access.profile_of(_request(**headers)) == "ann"
    assert _status(access, _request(authorization="Basic ???")) == 401
    assert _status(access, _request(authorization=f"Bearer {key[:-1]}")) == 401


@pytest.mark.parametrize("name", ["forwarded", "via", "x_forwarded_for", "x_forwarded_host", "x_real_ip"])
def test_whoever_comes_through_a_proxy_is_elsewhere(keys: Keys, name: str) -> None:
    assert _status(Access(keys, "mine"), _request(**{name: "8.8.8.8"})) == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8420", 200), ("127.0.0.1", 200), ("[::1]:8420", 200), ("192.168.1.7:8420", 200),
        ("pi.home:8420", 200), ("evil.example", 403), ("evil.example:8420", 403),
        ("127.0.0.1.evil.example", 403), ("", 403), ("[", 403),
        ("localhost.evil.example", 403), ("2130706433", 403),
    ],
)  # fmt: skip
def test_a_name_that_a_page_can_have_made_point_here_is_refused(keys: Keys, host: str, status: int) -> None:
    assert _status(Access(keys, "mine", hosts=["pi.home"]), _request(host=host)) == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8420", 200), ("https://my.page", 200), ("http://localhost:3000", 403), ("null", 403),
        ("http://evil.example", 403), ("http://localhost", 403), ("", 403), ("http://[", 403),
    ],
)  # fmt: skip
def test_other_pages_may_not_ask(keys: Keys, origin: str, status: int) -> None:
    assert _status(Access(keys, "mine", origins=["https://my.page"]), _request(origin=origin)) == status


def test_a_link_may_lead_here_and_a_hidden_request_may_not(keys: Keys) -> None:
    access = Access(keys, "mine")
    assert _status(access, _request(sec_fetch_site="cross-site", sec_fetch_mode="no-cors")) == 403
    assert _status(access, _request(sec_fetch_site="cross-site", sec_fetch_mode="navigate")) == 200


def test_the_file_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "home" / "serve.keys"
    key = Keys(path, "default").of("default")
    assert path.stat().st_mode & 0o777 == 0o600
    again = Keys(path, "default")
    assert again.of("default") == key
    assert again.profile(key) == "default"
    assert len(path.read_text().splitlines()) == 1, "no second key was made"
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        Keys(path, "default")
    path.chmod(0o600)
    path.write_text("default short\n")
    with pytest.raises(ConfigError, match="line 1"):
        Keys(path, "default")


def test_no_page_of_another_server_is_ever_allowed_to_read(start: Start) -> None:
    running = start()
    for method in ("GET", "OPTIONS"):
        status, _ = running.ask(method, "/edgelm/v1/log", Origin="http://evil.example")
        assert status == 403
    status, _ = running.ask("POST", "/edgelm/v1/forget", b'{"match": "a"}', Content_Type="text/plain", Origin="null")
    assert status == 403


def test_each_key_has_a_profile_of_its_own(start: Start, home: Path) -> None:
    from edgelm.serve.access import KEYS

    ann = Keys(home / KEYS, "ann").of("ann")
    running = start(learn=True, needs_key=True)
    mine = {"Authorization": f"Bearer {Keys(home / KEYS, 'default').of('default')}"}
    theirs = {"Authorization": f"Bearer {ann}"}
    turn = {"messages": [{"role": "user", "content": "I am Ann."}]}
    assert running.ask("POST", "/v1/chat/completions", turn)[0] == 401
    assert running.ask("POST", "/v1/chat/completions", turn, **theirs)[0] == 200
    assert [e["text"] for e in running.ask("GET", "/edgelm/v1/log", **theirs)[1]["entries"]] == ["I am Ann."]
    assert running.ask("GET", "/edgelm/v1/log", **mine)[1]["entries"] == []
