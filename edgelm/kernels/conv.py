"""Depthwise causal convolution over 4 tokens. Equations: ``edgelm.model.reference.conv4``."""

from __future__ import annotations

from edgelm.kernels.jit import entry
from edgelm.kernels.signature import F2


@entry(F2, F2, F2, F2)
def conv_forward(u, taps, last, out):
    """u, out [T,F]; taps [4,F], the last row for the present token; last [3,F], the tokens before."""
    n_steps, width = u.shape
    for t in range(n_steps):
        for j in range(width):
            out[t, j] = taps[3, j] * u[t, j]
        for back in range(1, 4):
            row = u[t - back] if t >= back else last[3 + t - back]
            tap = taps[3 - back]
            for j in range(width):
                out[t, j] += tap[j] * row[j]


@entry(F2, F2, F2, F2, F2, F2)
def conv_backward(dout, u, taps, last, du, dtaps):
    """du [T,F] overwritten, dtaps [4,F] added to; nothing flows into ``last``, the segment before."""
    n_steps, width = u.shape
    for t in range(n_steps):
        for j in range(width):
            du[t, j] = taps[3, j] * dout[t, j]
            dtaps[3, j] += dout[t, j] * u[t, j]
        for back in range(1, 4):
            tap, dtap = taps[3 - back], dtaps[3 - back]
            row = u[t - back] if t >= back else last[3 + t - back]
            for j in range(width):
                dtap[j] += dout[t, j] * row[j]
            if t >= back:
                for j in range(width):
                    du[t - back, j] += tap[j] * dout[t, j]
