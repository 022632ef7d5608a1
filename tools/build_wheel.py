"""Wheels with kernels that were compiled ahead of time, for any port, on any machine.

python -m tools.build_wheel --port rpi-4            dist/edgelm-...-py3-none-manylinux2014_aarch64.whl
python -m tools.build_wheel --all                   one wheel a machine; it serves all its ports

A wheel holds a library for each level of its machine (``ports/levels.toml``), chosen when it is loaded. Two builds of
the same source by the same tools are the same bytes; ``SOURCE_DATE_EPOCH`` dates what is in them.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

from edgelm import ports
from edgelm.kernels.compiler.here import compile_level

ROOT = Path(__file__).resolve().parents[1]
NOT_NEEDED = {"x86_64": ("numba", "onnx"), "aarch64": ("numba", "onnx", "onnxruntime")}
"""What the wheel of a machine runs without; they stay extras. To a Raspberry Pi ONNX Runtime would be the largest part
of all that is downloaded."""
_FIRST_DAY = 315532800
"""1980, the first year that a zip file can name."""


def machine_of(port: str) -> str:
    """The machine, as Python names it, that the kernels of a port are compiled for."""
    return str(ports.levels()[ports.load(port).level]["triple"]).partition("-")[0]


def compile_libraries(machine: str, folder: Path, wanted: Sequence[str] = ()) -> None:
    """Puts a library for each level of a machine, or for those wanted, into a folder; what lies there is kept.

    Raises
    ------
    RuntimeError
        A library cannot be made, as without GNU ld for that machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, level in ports.levels().items():
        out = folder / f"{name}.so"
        if level["triple"].startswith(machine + "-") and name in (wanted or (name,)) and not out.exists():
            compile_level(name, out)


def pack(machine: str, libraries: Path, out: Path) -> Path:
    """The wheel of a machine, written into the folder ``out``, around the libraries that lie in another."""
    with tempfile.TemporaryDirectory() as room:
        files = _pure_wheel(Path(room))
    for path in sorted(libraries.glob("*.so")):
        if ports.levels()[path.stem]["triple"].startswith(machine + "-"):
            files[f"edgelm/kernels/compiled/{path.name}"] = path.read_bytes()
    tag = f"py3-none-manylinux2014_{machine}"
    info = next(name.partition("/")[0] for name in files if name.endswith(".dist-info/METADATA"))
    files[f"{info}/METADATA"] = _without_needs(files[f"{info}/METADATA"], machine)
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: edgelm tools.build_wheel\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    )
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    out.mkdir(parents=True, exist_ok=True)
    wheel = out / f"{info.removesuffix('.dist-info')}-{tag}.whl"
    _write_zip(wheel, files)
    return wheel


def _pure_wheel(room: Path) -> dict[str, bytes]:
    """The files of the wheel that setuptools makes of a clean copy of the source."""
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, room / name)
    shutil.copytree(ROOT / "edgelm", room / "edgelm", ignore=shutil.ignore_patterns("__pycache__", "compiled"))
    build = "import sys; from setuptools import build_meta; sys.argv[1:] = []; build_meta.build_wheel('.')"
    done = subprocess.run([sys.executable, "-c", build], cwd=room, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"setuptools: {done.stderr.strip()}")
    with zipfile.ZipFile(next(room.glob("*.whl"))) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def _without_needs(metadata: bytes, machine: str) -> bytes:
    dropped = re.compile(rf"Requires-Dist: ({'|'.join(NOT_NEEDED[machine])})\b(?!.*extra ==)")
    return "".join(line for line in metadata.decode().splitlines(keepends=True) if not dropped.match(line)).encode()


def _record(files: dict[str, bytes], own: str) -> bytes:
    lines = []
    for name in sorted(set(files) - {own}):
        digest = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(files[name])}\n")
    return "".join([*lines, f"{own},,\n"]).encode()


def _write_zip(path: Path, files: dict[str, bytes]) -> None:
    seconds = max(int(os.environ.get("SOURCE_DATE_EPOCH", _FIRST_DAY)), _FIRST_DAY)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        # What describes the wheel stands last, as the format recommends.
        for name in sorted(files, key=lambda name: (".dist-info/" in name, name)):
            entry = zipfile.ZipInfo(name, time.gmtime(seconds)[:6])
            entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, 0o100644 << 16, 3
            archive.writestr(entry, files[name])


def main() -> None:
    """Builds what is asked for, and prints its files and their sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--port", choices=ports.names(), action="append", default=[])
    wanted.add_argument("--all", action="store_true")
    parser.add_argument("--level", choices=ports.levels(), action="append", default=[], help="with these alone")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--libraries", type=Path, help="folder of compiled libraries, kept for the next time")
    args = parser.parse_args()
    for level in args.level:
        if not all(ports.levels()[level]["triple"].startswith(f"{machine_of(port)}-") for port in args.port):
            parser.error(f"{level} is no level of {' or '.join(args.port)}")
    machines = sorted({machine_of(port) for port in (ports.names() if args.all else args.port)})
    with tempfile.TemporaryDirectory() as room:
        libraries = args.libraries or Path(room)
        try:
            for machine in machines:
                compile_libraries(machine, libraries.resolve(), args.level)
                wheel = pack(machine, libraries, args.out)
                print(f"{wheel}: {wheel.stat().st_size:,} bytes")
        except RuntimeError as exc:
            parser.exit(1, f"{parser.prog}: {' '.join(str(exc).split())}\n")


if __name__ == "__main__":
    main()
