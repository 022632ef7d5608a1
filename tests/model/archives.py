"""Archives of a model folder, good ones and hostile ones."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

Members = dict[str, bytes]
KINDS = ("tar", "tar.gz", "zip")


def members_of(folder: Path, top: str = "") -> Members:
    """The files of a folder by the path that an archive gives them."""
    return {top + path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def pack(path: Path, members: Members) -> Path:
    """Writes an archive of the kind that its name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, blob in members.items():
                archive.writestr(name, blob)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, blob in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(blob)
            archive.addfile(member, io.BytesIO(blob))
    return path


def _link(path: Path, kind: bytes, target: str) -> None:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("step.onnx")
        member.type, member.linkname = kind, target
        archive.addfile(member)


def _zip_link(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("step.onnx")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")


def _folders(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for number in range(1000):
            member = tarfile.TarInfo(f"model{number}")
            member.type = tarfile.DIRTYPE
            archive.addfile(member)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "up.tar": (lambda path: pack(path, {"../config.json": b"{}"}), "holds '../config.json'"),
    "deep up.tar": (lambda path: pack(path, {"a/../../README.md": b""}), "it may hold"),
    "absolute.tar": (lambda path: pack(path, {"/README.md": b""}), "holds '/README.md'"),
    "other.tar.gz": (lambda path: pack(path, {"model/setup.py": b""}), "holds 'model/setup.py'"),
    "two folders.tar": (lambda path: pack(path, {"a/README.md": b"", "b/config.json": b""}), "it may hold"),
    "twice.tar": (lambda path: pack(path, {"README.md": b"", "./README.md": b""}), "twice"),
    "symlink.tar": (lambda path: _link(path, tarfile.SYMTYPE, "/etc/passwd"), "a link"),
    "hardlink.tar": (lambda path: _link(path, tarfile.LNKTYPE, "config.json"), "a link"),
    "device.tar": (lambda path: _link(path, tarfile.CHRTYPE, ""), "a link or a device"),
    "folders.tar": (_folders, "more than"),
    "up.zip": (lambda path: pack(path, {"../config.json": b"{}"}), "holds '../config.json'"),
    "backslash.zip": (lambda path: pack(path, {"..\\config.json": b"{}"}), "it may hold"),
    "symlink.zip": (_zip_link, "a link"),
    "text.tar": (lambda path: path.write_text("no archive " * 100, encoding="utf-8"), "no tar, tar.gz or zip"),
    "empty.tar": (lambda path: path.write_bytes(b""), "no tar, tar.gz or zip"),
    "cut.zip": (lambda path: path.write_bytes(b"PK\3\4" + b"\0" * 50), "no tar, tar.gz or zip"),
}
"""By file name: what writes it, and what the error says."""
