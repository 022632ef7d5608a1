"""All kinds of layer part: a new one is a folder and a line here."""

from __future__ import annotations

import importlib
from types import ModuleType

from edgelm.cells.block_ffn.paper import BlockFfn
from edgelm.cells.cell import Cell
from edgelm.cells.gated_delta.paper import GatedDelta
from edgelm.cells.published.paper import Published
from edgelm.cells.retention.paper import Retention
from edgelm.cells.rwkv7_channel_mix.paper import Rwkv7ChannelMix
from edgelm.cells.rwkv7_time_mix.paper import Rwkv7TimeMix
from edgelm.cells.top_k_ffn.paper import TopKFfn

_KINDS = (GatedDelta, Published, Retention, Rwkv7TimeMix, BlockFfn, TopKFfn, Rwkv7ChannelMix)
CELLS: dict[str, type[Cell]] = {kind.KIND: kind for kind in _KINDS}


def passes_of(cell: Cell) -> ModuleType:
    """The module of the cell's passes; imported when it is asked for, because it loads kernels."""
    return importlib.import_module(f"edgelm.cells.{cell.KIND}.passes")


def graph_of(cell: Cell) -> ModuleType:
    """The module that writes the cell as ONNX."""
    return importlib.import_module(f"edgelm.cells.{cell.KIND}.graph")
