"""Who may ask: Host, Origin, and a key for whoever is not on this device.

A web page that a person visits can make their browser send requests to this device. Such a request names another
origin (``Origin``), or, where the page's own name was made to point here (DNS rebinding), another host (``Host``): both
are refused, and no other page is allowed to read anything (no CORS header is ever sent).
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import ipaddress
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edgelm.errors import ConfigError, InputError
from edgelm.log.folder import check_name
from edgelm.serve.http import Request, RequestError

KEYS = "serve.keys"
"""The file of keys, in the data folder: a line a key, the profile's name before it."""
PREFIX = "edgelm-"
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
"""What a proxy on this device says of somebody who is elsewhere."""


class Keys:
    """The keys of profiles, in a file that its owner alone can read.

    Parameters
    ----------
    path : Path
        Made, with one key for ``profile``, where it is not there.
    profile : str

    Raises
    ------
    ConfigError
        Others can read the file, or it holds something else.
    """

    def __init__(self, path: Path, profile: str) -> None:
        self.path = path
        self._profiles: dict[str, str] = {}
        if path.exists():
            self._read()
        if profile not in self._profiles.values():
            self.add(profile)

    def _read(self) -> None:
        if self.path.stat().st_mode & 0o077:
            raise ConfigError(
                f"{self.path}: others can read the keys in it; make it yours alone: chmod 600 {self.path}"
            )
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"{self.path}: the file of keys cannot be read: {exc}") from None
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or not words[1].startswith(PREFIX) or len(words[1]) < 32:
                raise ConfigError(f"{self.path}, line {number}: expected the name of a profile and its key")
            check_name(words[0])
            self._profiles[words[1]] = words[0]

    def add(self, profile: str) -> str:
        """Makes and keeps another key for a profile; returns it."""
        check_name(profile)
        key = PREFIX + secrets.token_urlsafe(24)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(f"{profile} {key}\n")
        except OSError as exc:
            raise InputError(f"{self.path}: the key cannot be kept: {exc.strerror}") from None
        self._profiles[key] = profile
        return key

    def of(self, profile: str) -> str:
        """The first key of a profile."""
        return next(key for key, name in self._profiles.items() if name == profile)

    def profile(self, key: str) -> str | None:
        """Whose key it is; each is compared in full, whatever it begins with."""
        found = None
        for known, profile in self._profiles.items():
            if hmac.compare_digest(known.encode(), key.encode()):
                found = profile
        return found


@dataclass(frozen=True)
class Access:
    """What may be asked by whom.

    Attributes
    ----------
    keys : Keys
    profile : str
        Of whoever is on this device and gives no key.
    hosts, origins : sequence of str
        Names of this device, and origins of pages, that are allowed beside those that always are.
    needs_key : bool
        Whether those on this device need one too.
    """

    keys: Keys
    profile: str
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    needs_key: bool = False

    def profile_of(self, request: Request) -> str:
        """The profile that a request is for.

        Raises
        ------
        RequestError
            It comes from another page, to another name, or without a key that it needs.
        """
        host = request.headers.get("host", "")
        if not self._is_ours(_name(host)):
            raise RequestError(403, f"this device is not called {_name(host)[:80]!r}; --allow-host allows a name")
        origin = request.headers.get("origin")
        if origin is not None and _place(origin) != host and origin not in self.origins:
            raise RequestError(403, f"pages of {origin[:80]!r} may not ask; allow them with --allow-origin")
        follows_link = request.method == "GET" and request.headers.get("sec-fetch-mode") == "navigate"
        if request.headers.get("sec-fetch-site") == "cross-site" and origin not in self.origins and not follows_link:
            raise RequestError(403, "a page of another site may not ask")
        key = _key(request.headers)
        if key:
            profile = self.keys.profile(key)
            if profile is None:
                raise RequestError(401, "this key is not known")
            return profile
        is_near = _is_loopback(request.peer) and not any(name in request.headers for name in _FORWARDED)
        if self.needs_key or not is_near:
            raise RequestError(
                401, f"a key is needed, as `Authorization: Bearer {PREFIX}...`; it is in {self.keys.path.name}"
            )
        return self.profile

    def _is_ours(self, name: str) -> bool:
        """Whether a page cannot have made this name point here: an address, or a name that is known to be ours."""
        here = socket.gethostname().lower()
        if name in {"localhost", here, f"{here}.local", *(host.lower() for host in self.hosts)}:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _name(host: str) -> str:
    """The name of a Host header, without port and brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return host.lower()


def _place(origin: str) -> str:
    """Name and port of an Origin header; empty where it has none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _key(headers: Mapping[str, str]) -> str:
    """The key that a request gives: as a bearer, as the password of a browser, or as ``x-api-key``."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            value = base64.b64decode(value, validate=True).decode().rpartition(":")[2]
    elif scheme.lower() != "bearer":
        value = headers.get("x-api-key", headers.get("api-key", ""))
    # Clients that insist on a key where none is needed are given any word.
    return value.strip() if value.strip().startswith(PREFIX) else ""


def _is_loopback(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
