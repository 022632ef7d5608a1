"""Object files to a shared library that any glibc of the last years can load, with a linker and nothing else.

What the kernels call stands in libm and libc, at their oldest version for the machine. The linker sees stand-ins that
are made here: those of a present system would ask for that system's age (``log`` for glibc 2.29).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import llvmlite.binding as llvm

OLDEST = {"x86_64": "GLIBC_2.2.5", "aarch64": "GLIBC_2.17"}
"""The first glibc of each machine, by the name that its symbols bear."""
SYMBOLS = {
    "libm.so.6": ("exp", "expf", "log", "logf", "log1p", "log1pf", "pow", "powf", "floor", "floorf"),
    "libc.so.6": ("memcpy", "memmove", "memset"),
}


def find_linker(triple: str) -> str:
    """GNU ld for a machine.

    Raises
    ------
    RuntimeError
        It is not installed (Debian: binutils-aarch64-linux-gnu).
    """
    machine = triple.partition("-")[0]
    own = llvm.get_default_triple().partition("-")[0] == machine
    linker = shutil.which(f"{triple}-ld") or (shutil.which("ld") if own else None)
    if linker is None:
        raise RuntimeError(f"no linker for {triple}: install binutils-{machine.replace('_', '-')}-linux-gnu")
    return linker


def link(blobs: list[bytes], triple: str, out: Path) -> None:
    """Writes the shared library ``out`` of object files.

    Raises
    ------
    RuntimeError
        There is no linker for this machine, or something is called that is neither in libm nor in libc.
    """
    linker = find_linker(triple)
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        objects = [room / f"kernels-{i}.o" for i in range(len(blobs))]
        for path, blob in zip(objects, blobs, strict=True):
            path.write_bytes(blob)
        stubs = [_stub(linker, room, triple, soname) for soname in SYMBOLS]
        # Nothing in it tells when, where and from what it was made.
        options = ["-s", "--build-id=none", "--hash-style=gnu", "--no-undefined", "--as-needed"]
        options += ["-z", "now", "-z", "relro", "-z", "noexecstack"]
        _run(linker, "-shared", *options, "-soname", "edgelm-kernels.so", "-o", out, *objects, *stubs)
        out.chmod(0o644)


def _stub(linker: str, room: Path, triple: str, soname: str) -> Path:
    functions = "".join(f"define void @{name}() {{ ret void }}\n" for name in SYMBOLS[soname])
    machine = llvm.Target.from_triple(triple).create_target_machine(reloc="pic")
    module = llvm.parse_assembly(f'target triple = "{triple}"\n{functions}')
    (room / "stub.o").write_bytes(machine.emit_object(module))
    (room / "versions").write_text(f"{OLDEST[triple.partition('-')[0]]} {{ global: *; }};\n", encoding="ascii")
    stub = room / soname
    _run(linker, "-shared", "-soname", soname, "--version-script", room / "versions", "-o", stub, room / "stub.o")
    return stub


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")
