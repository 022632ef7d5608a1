"""Slope section: a normalised exponential average over a fixed horizon per channel.

Equations and shapes: ``edgelm.model.reference``.
"""

from __future__ import annotations

from edgelm.kernels.jit import entry
from edgelm.kernels.norm import ONE
from edgelm.kernels.signature import F1, F2


@entry(F2, F1, F1, F1, F2, F2)
def slope_forward(v, decay, norm, state, norms, out):
    """One segment: n <- lam n + v, z <- lam z + 1, out = n / z.

    v, out [T,S]; decay [S]; norm [S] (z of each feature) and state [S] (n) updated in place;
    norms [T,S] overwritten with z at every step, for backward.
    """
    for t in range(v.shape[0]):
        for j in range(v.shape[1]):
            state[j] = decay[j] * state[j] + v[t, j]
            norm[j] = decay[j] * norm[j] + ONE
            norms[t, j] = norm[j]
            out[t, j] = state[j] / norm[j]


@entry(F2, F1, F2, F1, F2)
def slope_backward(dout, decay, norms, dstate, dv):
    """Gradients of one segment, given dout [T,S]: dn_t = dm_t / z_t + lam dn_{t+1}; dvs_t = dn_t.

    dstate [S] holds dL/dn after the segment and is updated in place to dL/dn before it; dv [T,S] is
    overwritten. z is no function of the input, so nothing flows through it.
    """
    for t in range(dout.shape[0] - 1, -1, -1):
        for j in range(dout.shape[1]):
            dv[t, j] = dstate[j] + dout[t, j] / norms[t, j]
            dstate[j] = decay[j] * dv[t, j]
