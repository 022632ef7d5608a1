"""Compiles all kernels for one level of ``ports/levels.toml``, on any machine.

python -m tools.aot LEVEL OUT.so
python -m tools.aot native FOLDER      for this processor, to be used by EDGELM_KERNELS=/path/of/FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edgelm.ports import level_of_this_processor, levels


def main() -> None:
    """Compiles in this process; one level a process."""
    name, out = sys.argv[1], Path(sys.argv[2])
    if name == "native":
        found = level_of_this_processor(levels())
        if found is None:
            sys.exit("tools.aot: ports/levels.toml has no level for this processor")
        name, out = found, out / f"{found}.so"
        out.parent.mkdir(parents=True, exist_ok=True)
    level = levels()[name]
    # Whatever this checkout would run, here its source is compiled.
    os.environ["EDGELM_KERNELS"] = "jit"
    from tools.aot.link import link
    from tools.aot.objects import compile_kernels

    blob, symbols = compile_kernels(level["triple"], level["cpu"], level["features"])
    link(blob, level["triple"], out)
    print(f"{out}: {len(symbols)} kernels, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
