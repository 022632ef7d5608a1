"""Ports: their files, which one a device gets, and what it has no room for."""

from __future__ import annotations

import configparser
import json
import os
import socket
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from edgelm import ports
from edgelm.cli.chat import _profile_of_peer
from edgelm.errors import DeviceError, InputError, ModelFileError
from edgelm.log.profile import Profile
from edgelm.model import hub
from edgelm.model.config import PRESETS
from edgelm.model.needs import memory_needed
from edgelm.runtime import Engine, EngineOptions
from tests.command import run_cli

ROOT = Path(__file__).resolve().parents[1]
PI_4 = "fp asimd evtstrm crc32 cpuid"
PI_5 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
OLD_PC = "fpu cx16 popcnt ssse3 sse4_1 sse4_2"
PC = f"{OLD_PC} abm avx avx2 bmi1 bmi2 f16c fma movbe"
PC_2021 = f"{PC} avx_vnni"
SERVER = f"{PC} avx512f avx512bw avx512cd avx512dq avx512vl"
SERVER_2019 = f"{SERVER} avx512_vnni"


def test_every_port_is_whole() -> None:
    assert set(ports.names()) == {"rpi-zero-2w", "rpi-4", "rpi-5", "generic-aarch64", "x86-64"}
    for port in map(ports.load, ports.names()):
        assert port.level in ports.levels()
        assert 1 <= port.threads < port.cores
        assert port.preset in PRESETS
        assert port.memory_mb >= 100
        assert 40 < port.soft_celsius < port.hard_celsius <= 100


def test_every_level_is_whole_and_the_best_of_a_machine_stands_first() -> None:
    needs: dict[str, int] = {}
    for level in ports.levels().values():
        assert set(level) == {"triple", "cpu", "features", "needs"}
        assert len(level["needs"]) < needs.get(level["triple"], 1000)
        needs[level["triple"]] = len(level["needs"])


@pytest.mark.parametrize(
    ("flags", "machine", "fast"),
    [
        (PI_4, "aarch64", False), (PI_5, "aarch64", True), (OLD_PC, "x86_64", False), (PC, "x86_64", True),
        (PC, "riscv64", False), (None, "x86_64", False),
    ],
)  # fmt: skip
def test_integers_are_fast_where_there_are_dot_products(
    flags: str | None, machine: str, fast: bool, tmp_path: Path
) -> None:
    path = tmp_path / "cpuinfo"
    if flags is not None:
        path.write_text(f"processor\t: 0\nflags\t\t: {flags}\n", encoding="utf-8")
    assert ports.multiplies_integers(path, machine, "Linux") == fast
    assert ports.multiplies_integers(path, machine, "Darwin")


def test_the_package_holds_the_files_of_the_top_folder() -> None:
    assert {path.name: path.read_bytes() for path in ports.FOLDER.iterdir()} == {
        path.name: path.read_bytes() for path in (ROOT / "ports").iterdir()
    }


@pytest.mark.parametrize(
    ("model", "machine", "name"),
    [
        ("Raspberry Pi Zero 2 W Rev 1.0\0", "aarch64", "rpi-zero-2w"),
        ("Raspberry Pi 4 Model B Rev 1.4\0", "aarch64", "rpi-4"),
        ("Raspberry Pi 5 Model B Rev 1.0\0", "aarch64", "rpi-5"),
        ("Radxa ROCK 5B\0", "aarch64", "generic-aarch64"),
        (None, "arm64", "generic-aarch64"),
        (None, "AMD64", "x86-64"),
        (None, "riscv64", "generic-riscv64"),
        (None, "", "generic-unknown"),
    ],
)
def test_detect(model: str | None, machine: str, name: str, tmp_path: Path) -> None:
    tree = tmp_path / "model"
    if model is not None:
        tree.write_text(model, encoding="ascii")
    assert ports.detect(tree, machine).name == name


@pytest.mark.parametrize(
    ("cpuinfo", "machine", "system", "level"),
    [
        (f"Features\t: {PI_5}\n", "aarch64", "Linux", "aarch64-cortex-a76"),
        (f"processor\t: 0\nFeatures\t: {PI_4}\n", "aarch64", "Linux", "aarch64-cortex-a53"),
        ("", "arm64", "Linux", "aarch64-cortex-a53"),
        (f"flags\t\t: {SERVER_2019} avx_vnni\n", "x86_64", "Linux", "x86-64-v4"),
        (f"flags\t\t: {SERVER_2019}\n", "x86_64", "Linux", "x86-64-v4"),
        (f"flags\t\t: {PC_2021}\n", "x86_64", "Linux", "x86-64-avxvnni"),
        (f"flags\t\t: {SERVER}\n", "x86_64", "Linux", "x86-64-v3"),
        (f"flags\t\t: {PC}\n", "x86_64", "Linux", "x86-64-v3"),
        (f"flags\t\t: {OLD_PC}\n", "x86_64", "Linux", "x86-64-v2"),
        ("flags\t\t: fpu\n", "x86_64", "Linux", None),
        (f"flags\t\t: {PC}\n", "x86_64", "Darwin", None),
        ("", "armv7l", "Linux", None),
    ],
)
def test_the_best_level_that_a_processor_can_run(
    cpuinfo: str, machine: str, system: str, level: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(cpuinfo, encoding="ascii")
    assert ports.level_of_this_processor(ports.levels(), path, machine, system) == level
    assert ports.level_of_this_processor([], path, machine, system) is None


def test_only_a_level_that_is_there_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"flags: {PC}\n", encoding="ascii")
    assert ports.level_of_this_processor(["x86-64-v2", "another"], path, "x86_64", "Linux") == "x86-64-v2"


def meminfo(folder: Path, kibibytes: int) -> Path:
    """A /proc/meminfo."""
    path = folder / "meminfo"
    path.write_text(f"MemTotal:  443904 kB\nMemFree:  10 kB\nMemAvailable:  {kibibytes} kB\n", encoding="ascii")
    return path


def test_what_fits_is_let_in(tmp_path: Path) -> None:
    port = ports.load("rpi-zero-2w")
    ports.check_memory(235_000_000, "small", port, meminfo(tmp_path, 300_000))
    ports.check_memory(235_000_000, "small", port, tmp_path / "none")


def test_what_does_not_fit_is_told_what_it_needs_and_what_is_free(tmp_path: Path) -> None:
    port = ports.load("rpi-zero-2w")
    with pytest.raises(DeviceError, match=r"small needs 236 MB of memory, 204 MB are free"):
        ports.check_memory(235_000_001, "small", port, meminfo(tmp_path, 200_000))
    with pytest.raises(
        DeviceError, match=r"base needs 600 MB of memory, edgelm may take 320 MB on Raspberry Pi Zero 2 W"
    ):
        ports.check_memory(600_000_000, "base", port, meminfo(tmp_path, 4_000_000))


def test_a_port_of_no_budget_asks_only_what_is_free(tmp_path: Path) -> None:
    port = ports.detect(tmp_path / "none", "riscv64")
    ports.check_memory(1 << 40, "huge", port, tmp_path / "none")


@pytest.mark.parametrize("name", ["rpi-zero-2w", "rpi-4", "rpi-5", "generic-aarch64", "x86-64"])
def test_the_preset_of_a_port_is_within_its_budget(name: str) -> None:
    port = ports.load(name)
    ports.check_memory(memory_needed(port.preset), port.preset, port, Path("/nowhere"))


def test_memory_is_asked_for_before_weights_are_read(
    tiny_model: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(hub, "load", load)
    monkeypatch.setattr("edgelm.ports.check_memory.__defaults__", (meminfo(tmp_path, 1000),))
    with pytest.raises(DeviceError, match="MB of memory, 1 MB are free"):
        Engine(EngineOptions(str(tiny_model)))
    with pytest.raises(ModelFileError):
        memory_needed(str(tmp_path))


def test_info_names_the_port(tiny_model: Path, home: Path) -> None:
    fields = run_cli(["info", "--json", "--model", str(tiny_model)]).json
    port = ports.detect()
    assert (fields["port"], fields["threads"], fields["memory_mb"]) == (port.name, port.threads, port.memory_mb)
    assert fields["kernels"] in {"jit", "python", *ports.levels()}


def _unit(name: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "ports" / name, encoding="utf-8")
    return unit


def test_who_calls_the_service_commands_their_own_profile(tiny_model: Path, home: Path) -> None:
    service = _unit("edgelm@.service")["Service"]
    # A namespace of users would hide who calls.
    assert "PrivateUsers" not in service
    assert _unit("edgelm.socket")["Socket"]["SocketMode"] == "0660"
    _, *arguments = service["ExecStart"].split()
    command = [sys.executable, "-m", "edgelm", *arguments, "--json", "--max-tokens", "1", "--model", str(tiny_model)]
    ours, theirs = socket.socketpair()
    with ours, subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs) as process:
        theirs.close()
        ours.sendall(b"My address is 7 Harbour Lane.\nHello\n/forget harbour\n/quit\n")
        with ours.makefile(encoding="utf-8") as answers:
            rows = [json.loads(line) for line in answers]
        assert process.wait() == 0
    assert [row.get("turn") for row in rows] == [1, 2, None]
    assert rows[2] == {"command": "/forget", "said": "Forgot 'harbour': 1 entry of the log."}
    name, model = f"uid-{os.getuid()}", hub.load(str(tiny_model))
    with closing(Profile(home / "profiles", name, model, writable=True)) as profile:
        assert [entry.text for entry in profile.entries if entry.text] == ["Hello"]
    assert [path.name for path in (home / "profiles").glob("*.db")] == [f"{name}.db"]


def test_the_service_of_http_is_closed_in_as_the_other_and_starts(tmp_path: Path) -> None:
    other, service = _unit("edgelm@.service")["Service"], _unit("edgelm-serve.service")["Service"]
    differ = {"ExecStart", "KillSignal", "IPAddressDeny", "RestrictAddressFamilies", "StandardOutput", "Nice"}
    # It needs a network, of this device alone; a profile is named by a key, not by who calls.
    differ |= {"StandardInput", "SuccessExitStatus", "PrivateNetwork"}
    assert {key for key in other if service.get(key) != other[key]} <= differ
    assert (service["IPAddressDeny"], service["IPAddressAllow"]) == ("any", "localhost")
    command = service["ExecStart"].split()[1:]
    assert command[0] == "serve"
    assert "--host" not in command
    result = run_cli([*command, "--new-key", "--json"], env={"EDGELM_HOME": str(tmp_path)})
    assert result.json["profile"] == "default"


def test_the_service_of_a_swarm_is_closed_in_as_that_of_http() -> None:
    other, service = _unit("edgelm-serve.service")["Service"], _unit("edgelm-swarm.service")["Service"]
    # To know whether the device is idle it reads the load of all.
    differ = {"ExecStart", "IPAddressAllow", "Nice", "ProcSubset"}
    assert {key for key in other if service.get(key) != other[key]} == differ
    _, *words = service["ExecStart"].split()
    assert words[:2] == ["swarm", "join"]
    assert service["IPAddressAllow"] == words[2].rpartition(":")[0]
    assert len(words) == 3


@pytest.mark.parametrize("uid", [65534, 0xFFFFFFFF])
def test_a_caller_whom_the_kernel_cannot_name_is_refused(uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, theirs.makefile() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert _profile_of_peer() == f"uid-{os.getuid()}"
        monkeypatch.setattr(socket.socket, "getsockopt", lambda *args: struct.pack("iII", 1, uid, uid))
        with pytest.raises(InputError, match="cannot tell who"):
            _profile_of_peer()


def test_a_socket_of_the_network_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, server.makefile() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(InputError, match="Unix socket"):
            _profile_of_peer()
