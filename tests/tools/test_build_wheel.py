"""Wheels of kernels compiled ahead of time: the same twice, light, and enough to chat and learn."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tools.build_wheel import machine_of, main, pack

MACHINE = platform.machine()
LARGEST = 3_000_000
"""Bytes without the bundled model."""


@pytest.fixture(scope="module")
def wheel(compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this machine, with the kernels of this processor alone."""
    return pack(MACHINE, compiled, tmp_path_factory.mktemp("dist"))


def test_ports_share_the_wheel_of_their_machine() -> None:
    assert {machine_of(port) for port in ("rpi-zero-2w", "rpi-4", "rpi-5", "generic-aarch64")} == {"aarch64"}
    assert machine_of("x86-64") == "x86_64"


def test_it_is_named_for_every_python_and_a_glibc_of_long_ago(wheel: Path) -> None:
    assert wheel.name.startswith("edgelm-")
    assert wheel.name.endswith(f"-py3-none-manylinux2014_{MACHINE}.whl")


def test_two_builds_are_the_same_bytes(wheel: Path, compiled: Path, tmp_path: Path) -> None:
    assert pack(MACHINE, compiled, tmp_path).read_bytes() == wheel.read_bytes()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_it_needs_neither_numba_nor_onnx_and_on_arm_no_onnx_runtime(machine: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(pack(machine, tmp_path, tmp_path / "dist")) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    needs = metadata.get_all("Requires-Dist", [])
    always = [need for need in needs if "extra ==" not in need]
    assert any(need.startswith("onnxruntime") for need in always) == (machine == "x86_64")
    assert [need for need in always if need.startswith(("numba", "llvmlite", "onnx>"))] == []
    assert {'onnxruntime>=1.31; extra == "onnx"'} <= set(needs)
    assert {'onnx>=1.19; extra == "export"', 'numba>=0.61; extra == "jit"'} <= set(needs)


def test_it_holds_what_it_should_and_no_more(wheel: Path, compiled: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        items = {item.filename: item for item in archive.infolist()}
        assert archive.testzip() is None
    assert f"edgelm/kernels/compiled/{next(compiled.iterdir()).name}" in items
    assert {"edgelm/data/ports/levels.toml", "edgelm/data/ports/rpi-4.toml"} <= items.keys()
    assert not [name for name in items if name.startswith(("tests", "tools", "ports")) or "__pycache__" in name]
    assert sum(item.compress_size for name, item in items.items() if "/models/" not in name) < LARGEST
    assert len({item.date_time for item in items.values()}) == 1
    assert list(items) == sorted(items, key=lambda name: (".dist-info/" in name, name))


def test_without_a_linker_it_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = "no linker for aarch64-linux-gnu: install binutils-aarch64-linux-gnu"

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", f"{needed}\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["build_wheel", "--port", "rpi-4", "--out", str(tmp_path / "dist")])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert tuple(capsys.readouterr()) == ("", f"build_wheel: {needed}\n")
    assert not (tmp_path / "dist").exists()


SCRIPT = """
import sys
sys.modules |= dict.fromkeys(["numba", "llvmlite", "onnx"])
from edgelm.cli.main import main
main()
"""


STRICT = """
import ctypes, mmap, sys
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0):
    sys.exit(77)
try:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except PermissionError:
    pass
else:
    sys.exit("memory can still be both written and run")
"""


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed as far as importing goes."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(
    site: Path, home: Path, model: Path, args: list[str], said: str = "", before: str = ""
) -> subprocess.CompletedProcess[str]:
    """The command, where neither numba nor onnx can be imported."""
    environment = {**os.environ, "PYTHONPATH": str(site), "EDGELM_HOME": str(home), "EDGELM_KERNELS": "aot"}
    command = [sys.executable, "-c", before + SCRIPT, *args, "--model", str(model)]
    return subprocess.run(command, input=said, capture_output=True, text=True, cwd=site, env=environment, timeout=120)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["chat", "--max-tokens", "3"], "my dog is called Biscuit\nwhat is my dog called?\n"),
        (["complete", "The ferry", "-n", "3"], ""),
        (["adapt", "-", "--holdout", "0"], "The ferry leaves at seven. " * 20),
        (["info"], ""),
        (["export", "exported"], ""),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_it_runs_without_numba_and_onnx(
    site: Path, tmp_path: Path, tiny_model: Path, args: list[str], said: str
) -> None:
    done = run(site, tmp_path, tiny_model, args, said)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_it_learns_where_no_memory_is_both_written_and_run(site: Path, tmp_path: Path, tiny_model: Path) -> None:
    done = run(
        site, tmp_path, tiny_model, ["chat", "--json", "--max-tokens", "3"], "my dog is called Biscuit\n", STRICT
    )
    if done.returncode == 77:
        pytest.skip("the kernel has no PR_SET_MDWE (Linux 6.3)")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["learned_tokens"] > 0


def test_a_level_of_another_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build_wheel", "--port", "rpi-4", "--level", "x86-64-v3", "--out", str(tmp_path / "dist")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "x86-64-v3 is no level of rpi-4\n" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []
