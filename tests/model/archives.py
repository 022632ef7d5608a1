"""Archives of a model folder, good ones and hostile ones."""

from __future__ import annotations

import gzip
import io
import struct
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


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def _announced(path: Path, kind: bytes, size: int = 32 << 20, times: int = 1) -> None:
    """What is said about a file before it, and a model's file."""
    blob = (_header("about", size, kind) + bytes(size)) * times + _header("README.md", 0) + bytes(1024)
    path.write_bytes(gzip.compress(blob) if path.suffix == ".gz" else blob)


def _zip(path: Path, method: int = zipfile.ZIP_STORED, times: int = 1, comment: bytes = b"") -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for number in range(times):
            member = zipfile.ZipInfo(f"README{number or ''}.md")
            member.compress_type, member.comment = method, comment
            archive.writestr(member, b"words" * 100)


def _edited_zip(path: Path, mark: bytes, at: int, new: bytes) -> None:
    """A zip with other bytes behind the mark of a header, of a directory's entry, or of its end."""
    _zip(path, zipfile.ZIP_DEFLATED)
    blob = bytearray(path.read_bytes())
    begin = blob.rindex(mark) + at
    blob[begin : begin + len(new)] = new
    path.write_bytes(blob)


def _zip_of_64_bits(path: Path) -> None:
    """Its end says that the directory is small; another end before it, which zipfile believes, says it is large."""
    _zip(path)
    blob = path.read_bytes()
    end = blob.rindex(b"PK\5\6")
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 32 << 20, 0)
    path.write_bytes(blob[:end] + large + struct.pack("<4sLQL", b"PK\6\7", 0, end, 1) + blob[end:])


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "up.tar": (lambda path: pack(path, {"../config.json": b"{}"}), "holds '../config.json'"),
    "deep up.tar": (lambda path: pack(path, {"a/../../README.md": b""}), "it may hold"),
    "absolute.tar": (lambda path: pack(path, {"/README.md": b""}), "holds '/README.md'"),
    "other.tar.gz": (lambda path: pack(path, {"model/setup.py": b""}), "holds 'model/setup.py'"),
    "two folders.tar": (lambda path: pack(path, {"a/README.md": b"", "b/config.json": b""}), "it may hold"),
    "twice.tar": (lambda path: pack(path, {"README.md": b"", "./README.md": b""}), "twice"),
    "symlink.tar": (lambda path: _link(path, tarfile.SYMTYPE, "/etc/passwd"), "no plain file"),
    "hardlink.tar": (lambda path: _link(path, tarfile.LNKTYPE, "config.json"), "no plain file"),
    "device.tar": (lambda path: _link(path, tarfile.CHRTYPE, ""), "no plain file"),
    "folders.tar": (_folders, "more than"),
    "up.zip": (lambda path: pack(path, {"../config.json": b"{}"}), "holds '../config.json'"),
    "backslash.zip": (lambda path: pack(path, {"..\\config.json": b"{}"}), "it may hold"),
    "symlink.zip": (_zip_link, "no plain file"),
    "text.tar": (lambda path: path.write_text("no archive " * 100, encoding="utf-8"), "no tar, tar.gz or zip"),
    "empty.tar": (lambda path: path.write_bytes(b""), "no tar, tar.gz or zip"),
    "much about a file.tar.gz": (lambda path: _announced(path, tarfile.XHDTYPE), "bytes about a file"),
    "much about all.tar.gz": (lambda path: _announced(path, tarfile.XGLTYPE), "bytes about a file"),
    "less than nothing about it.tar": (lambda path: path.write_bytes(_header("a", -512, b"x")), "bytes about a file"),
    "often about a file.tar": (lambda path: _announced(path, tarfile.XHDTYPE, 512, 1000), "more than 64 things"),
    "long name.tar.gz": (lambda path: _announced(path, tarfile.GNUTYPE_LONGNAME), "no plain file"),
    "long link.tar.gz": (lambda path: _announced(path, tarfile.GNUTYPE_LONGLINK), "no plain file"),
    "with holes.tar.gz": (lambda path: _announced(path, tarfile.GNUTYPE_SPARSE), "no plain file"),
    "large config.tar.gz": (lambda path: pack(path, {"config.json": b"[]," * (8 << 20)}), "config.json: 25,165,824 by"),
    "large card.tar.gz": (lambda path: pack(path, {"README.md": bytes(8 << 20)}), "README.md: 8,388,608 bytes"),
    "huge.tar": (lambda path: path.write_bytes(_header("weights.safetensors", 1 << 62)), "larger than"),
    "less than nothing.tar": (lambda path: path.write_bytes(_header("README.md", -512)), "README.md: -512 bytes"),
    "many.zip": (lambda path: _zip(path, times=1000), "more than 64 things"),
    "much in its directory.zip": (lambda path: _zip(path, times=9, comment=bytes(60_000)), "a directory of 540,"),
    "of 64 bits.zip": (_zip_of_64_bits, "of 64 bits"),
    "large config.zip": (lambda path: pack(path, {"config.json": b"[]," * (8 << 20)}), "config.json: 25,165,824 by"),
    "by bzip2.zip": (lambda path: _zip(path, zipfile.ZIP_BZIP2), "by a rare method"),
    "by lzma.zip": (lambda path: _zip(path, zipfile.ZIP_LZMA), "by a rare method"),
    "larger than it says.zip": (lambda path: _edited_zip(path, b"PK\1\2", 24, b"\1\0\0\0"), "damaged"),
    "other data.zip": (lambda path: _edited_zip(path, b"PK\3\4", 39, b"\xff\xff\xff"), "damaged"),
    "no header.zip": (lambda path: _edited_zip(path, b"PK\1\2", 42, b"\xff\xff\xff\x7f"), "damaged"),
    "directory elsewhere.zip": (lambda path: _edited_zip(path, b"PK\5\6", 16, b"\xff\xff\xff\x7f"), "damaged"),
    "mark in its end.zip": (lambda path: _edited_zip(path, b"PK\5\6", 12, b"PK\5\6"), "damaged"),
    "cut.zip": (lambda path: path.write_bytes(b"PK\3\4" + b"\0" * 50), "no tar, tar.gz or zip"),
}
"""By file name: what writes it, and what the error says."""
