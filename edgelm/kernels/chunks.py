"""The gated delta rule (``decay.py``) a few tokens at a time, as products of matrices; heads are multiples of 32 wide.

With G_t the share of the memory S before the chunk that token t still finds, and R_ts that of what token s wrote::

    W = beta (V - G K S - M W),  M = strictly lower (R K K'),     O = G Q S + P W,  P = lower (R Q K')
    S <- G_n S + (R_n K)' W

W is solved from the first token to the last; what flows back to it from the last to the first. All parts of a chunk
stand in one workspace, one after another; x is always this array, and other names are places in it.
"""

from __future__ import annotations

from edgelm.kernels.decay import CHUNK
from edgelm.kernels.emit_panel import WIDE
from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.norm import ONE, ZERO, exp
from edgelm.kernels.panel import add_across, add_product, multiply, turned
from edgelm.kernels.signature import F1, F2, F3, F4


def workspace_size(key_dim: int, value_dim: int) -> int:
    """Numbers of workspace that both passes work in."""
    wide = max(key_dim, value_dim)
    return 4 * key_dim * value_dim + CHUNK * (8 * key_dim + 4 * value_dim + 5 * WIDE + 3) + 2 * WIDE * wide


def fits(key_dim: int, value_dim: int) -> bool:
    """Whether heads are as wide as these kernels need."""
    return key_dim % WIDE == 0 and value_dim % WIDE == 0


@entry((F3, F3, F3), (F2, F2), F1, F4, F3, F3)
def chunks_forward(given, gates, x, checkpoints, state, out):
    """As ``decay_forward``, of (q, k, v) and (g, beta); x [``workspace_size``] is overwritten."""
    q, k, v = given
    n_steps, n_heads, keys = q.shape
    values = v.shape[2]
    area, ck, cv = keys * values, CHUNK * keys, CHUNK * values
    w = area + 2 * ck
    shares = w + 2 * cv + WIDE * keys + CHUNK * WIDE
    lost = shares + CHUNK * WIDE
    q0 = lost + 3 * CHUNK
    p, o = q0 + ck, q0 + ck + CHUNK * WIDE
    for h in range(n_heads):
        for t0 in range(0, n_steps, CHUNK):
            n = min(CHUNK, n_steps - t0)
            _copy_in(state[h], x, 0)
            _copy_out(x, 0, checkpoints[t0 // CHUNK, h])
            _solve(k, v, gates, h, t0, n, x)
            _rows_in(q, h, t0, n, x, q0)
            multiply(x, q0, keys, w + 2 * cv, WIDE, p, WIDE, n, WIDE, keys)
            _masked(x, p, shares, n)
            _scale(x, q0, lost, 1, n, keys)
            multiply(x, q0, keys, 0, values, o, values, n, values, keys)
            add_product(x, p, WIDE, w, values, o, values, n, values, n)
            _rows_out(x, o, h, t0, n, out)
            # The memory after the chunk.
            _scale(x, area, shares + (n - 1) * WIDE, 1, n, keys)
            _scale(x, 0, lost + n - 1, 0, keys, values)
            add_across(x, area, keys, w, values, 0, values, keys, values, n)
            _copy_out(x, 0, state[h])


@entry(F3, (F3, F3, F3), (F2, F2), F4, F1, F3, (F3, F3, F3), (F2, F2))
def chunks_backward(dout, given, gates, checkpoints, x, dstate, dgiven, dgates):
    """As ``decay_backward``, of (q, k, v) and (g, beta) to their gradients; x [``workspace_size``] is overwritten."""
    q, k, v = given
    dq, dk, dv = dgiven
    n_steps, n_heads, keys = q.shape
    values = v.shape[2]
    area, ck, cv = keys * values, CHUNK * keys, CHUNK * values
    q0 = area + 2 * ck + 2 * cv + WIDE * keys + 2 * CHUNK * WIDE + 3 * CHUNK
    do, p = q0 + 2 * ck, q0 + 2 * ck + cv
    d = p + CHUNK * WIDE
    de = d + area
    dqt = de + cv + WIDE * values + 2 * CHUNK * WIDE + area
    for h in range(n_heads):
        for t0 in range((n_steps - 1) // CHUNK * CHUNK, -1, -CHUNK):
            n = min(CHUNK, n_steps - t0)
            _copy_in(checkpoints[t0 // CHUNK, h], x, 0)
            _copy_in(dstate[h], x, d)
            _solve(k, v, gates, h, t0, n, x)
            _rows_in(q, h, t0, n, x, q0)
            _rows_in(q, h, t0, n, x, q0 + ck)
            _rows_in(dout, h, t0, n, x, do)
            _solve_back(gates[1], h, t0, n, (keys, values), x, dgates[1])
            _rows_out(x, de, h, t0, n, dv)
            _products_back(n, (keys, values), x)
            _gates_back(h, t0, n, (keys, values), x, dgates[0])
            _inputs_back(n, (keys, values), x)
            _rows_out(x, dqt, h, t0, n, dq)
            _rows_out(x, dqt + ck, h, t0, n, dk)
            _copy_out(x, d, dstate[h])


@kernel
def _places(sizes):
    """K, W, M, R, G, then Q, dO, P, then D, dE, W' [Vd,32], dP, one state turned, dQ."""
    keys, values = sizes
    area, ck, cv, square = keys * values, CHUNK * keys, CHUNK * values, CHUNK * WIDE
    w = area + 2 * ck
    m = w + 2 * cv + WIDE * keys
    q0 = m + 2 * square + 3 * CHUNK
    d = q0 + 2 * ck + cv + square
    turn = d + area + cv
    dp = turn + WIDE * values
    state = dp + 2 * square
    return area, w, m, m + square, m + 2 * square, q0, q0 + 2 * ck, q0 + 2 * ck + cv, d, d + area, turn, dp, state


@kernel
def _solve_back(beta, h, t0, n, sizes, x, dbeta):
    """G Q, R_n K, and of what flows back to W: dE and dbeta."""
    keys, values = sizes
    k0, w, m, shares, lost, q0, do, p, d, de, _, _, state = _places(sizes)
    kept = state + keys * values + 2 * CHUNK * keys
    _scale(x, q0 + CHUNK * keys, lost, 1, n, keys)
    turned_keys = w + 2 * CHUNK * values
    multiply(x, q0, keys, turned_keys, WIDE, p, WIDE, n, WIDE, keys)
    _masked(x, p, shares, n)
    for s in range(n):
        row, out, times = x[k0 + s * keys :], x[kept + s * keys :], x[shares + (n - 1) * WIDE + s]
        for j in range(keys):
            out[j] = row[j] * times
    multiply(x, kept, keys, d, values, state, values, n, values, keys)
    add_across(x, p, WIDE, do, values, state, values, n, values, n)
    for s in range(n - 1, -1, -1):
        flow, out, e = x[state + s * values :], x[de + s * values :], x[w + (CHUNK + s) * values :]
        for j in range(values):
            out[j] = 0
        later = m + (s + 1) * WIDE + s
        add_across(x, later, WIDE, de + (s + 1) * values, values, de + s * values, values, 1, values, n - 1 - s)
        total, b = ZERO, beta[t0 + s, h]
        for j in range(values):
            flow[j] -= out[j]
        for j in range(values):
            total += flow[j] * e[j]
        for j in range(values):
            out[j] = flow[j] * b
        dbeta[t0 + s, h] = total


@kernel
def _products_back(n, sizes, x):
    """dO S' and dE S' at dQ, W D' after them; dP and -dM."""
    keys, values = sizes
    _, w, _, _, _, _, do, _, d, de, turn, dp, state = _places(sizes)
    ck = CHUNK * keys
    dqt = state + keys * values
    # What flows back from the memory needs what was kept of the keys no more: it takes the place after dK.
    turned(x, 0, values, keys, values, x, state, keys)
    multiply(x, do, values, state, keys, dqt, keys, n, keys, values)
    multiply(x, de, values, state, keys, dqt + ck, keys, n, keys, values)
    turned(x, d, values, keys, values, x, state, keys)
    multiply(x, w, values, state, keys, dqt + 3 * ck, keys, n, keys, values)
    turned(x, w, values, n, values, x, turn, WIDE)
    multiply(x, do, values, turn, WIDE, dp, WIDE, n, WIDE, values)
    multiply(x, de, values, turn, WIDE, dp + CHUNK * WIDE, WIDE, n, WIDE, values)


@kernel
def _gates_back(h, t0, n, sizes, x, dg):
    """dg: of each token what its share of the memory, and of what was written before, weighs."""
    keys, values = sizes
    _, _, m, _, lost, q0, _, p, d, _, _, dp, state = _places(sizes)
    area, ck, square = keys * values, CHUNK * keys, CHUNK * WIDE
    dqt, moved = state + area, lost + 2 * CHUNK
    kept = dqt + 2 * ck
    whole = _dot(x, 0, d, area) * x[lost + n - 1]
    for t in range(n):
        written = _dot(x, kept + t * keys, kept + ck + t * keys, keys)
        whole += written
        x[moved + t] = -written
        x[moved + t] += _dot(x, q0 + ck + t * keys, dqt + t * keys, keys)
        x[moved + t] -= _dot(x, area + ck + t * keys, dqt + ck + t * keys, keys)
    for t in range(n):
        for s in range(t):
            place = t * WIDE + s
            both = x[dp + place] * x[p + place] - x[dp + square + place] * x[m + place]
            x[moved + t] += both
            x[moved + s] -= both
    for t in range(n - 1, -1, -1):
        whole += x[moved + t]
        dg[t0 + t, h] = whole


@kernel
def _dot(x, a, b, n):
    """The sum of products of two parts."""
    total, first, second = ZERO, x[a:], x[b:]
    for j in range(n):
        total += first[j] * second[j]
    return total


@kernel
def _inputs_back(n, sizes, x):
    """dQ, dK, and D as it is before the chunk."""
    keys, values = sizes
    k0, _, _, shares, lost, q0, do, _, d, de, _, dp, state = _places(sizes)
    ck, dm, dqt, minus = CHUNK * keys, dp + CHUNK * WIDE, state + keys * values, lost + CHUNK
    x[minus] = -1
    _masked(x, dp, shares, n)
    _masked(x, dm, shares, n)
    for t in range(n):
        x[dm + t * WIDE + t] = 0
    _scale(x, dm, minus, 0, n, WIDE)
    _scale(x, dqt, lost, 1, n, keys)
    add_product(x, dp, WIDE, k0, keys, dqt, keys, n, keys, n)
    _scale(x, dqt + ck, lost, 1, n, keys)
    _scale(x, dqt + ck, minus, 0, n, keys)
    add_across(x, dp, WIDE, q0, keys, dqt + ck, keys, n, keys, n)
    add_product(x, dm, WIDE, k0, keys, dqt + ck, keys, n, keys, n)
    add_across(x, dm, WIDE, k0, keys, dqt + ck, keys, n, keys, n)
    for s in range(n):
        row, out, times = x[dqt + 3 * ck + s * keys :], x[dqt + ck + s * keys :], x[shares + (n - 1) * WIDE + s]
        for j in range(keys):
            out[j] += row[j] * times
    _scale(x, d, lost + n - 1, 0, keys, values)
    add_across(x, q0 + ck, keys, do, values, d, values, keys, values, n)
    _scale(x, k0 + ck, minus, 0, n, keys)
    add_across(x, k0 + ck, keys, de, values, d, values, keys, values, n)


@kernel
def _solve(k, v, gates, h, t0, n, x):
    """For the memory S at 0: K, G K, W, E = V - G K S - M W, K' [K,32], M, R and G, in this order."""
    g, beta = gates
    keys, values = k.shape[2], v.shape[2]
    area, ck, cv = keys * values, CHUNK * keys, CHUNK * values
    w = area + 2 * ck
    e, turn = w + cv, w + 2 * cv
    m = turn + WIDE * keys
    shares = m + CHUNK * WIDE
    lost = shares + CHUNK * WIDE
    _shares(g, h, t0, n, x, shares, lost)
    _rows_in(k, h, t0, n, x, area)
    _rows_in(k, h, t0, n, x, area + ck)
    _scale(x, area + ck, lost, 1, n, keys)
    turned(x, area, keys, n, keys, x, turn, WIDE)
    multiply(x, area, keys, turn, WIDE, m, WIDE, n, WIDE, keys)
    _masked(x, m, shares, n)
    multiply(x, area + ck, keys, 0, values, e, values, n, values, keys)
    for t in range(n):
        # What earlier tokens wrote, then what is new.
        add_product(x, m + t * WIDE, WIDE, w, values, e + t * values, values, 1, values, t)
        row, write, b, new = x[e + t * values :], x[w + t * values :], beta[t0 + t, h], v[t0 + t, h]
        for j in range(values):
            row[j] = new[j] - row[j]
        for j in range(values):
            write[j] = row[j] * b


@kernel
def _shares(g, h, t0, n, x, shares, lost):
    """R [n,32] and G [n] of a chunk."""
    run = ONE
    for t in range(n):
        keep = exp(g[t0 + t, h])
        run *= keep
        x[lost + t] = run
        row, before = x[shares + t * WIDE :], x[shares + (t - 1) * WIDE :] if t > 0 else x[shares:]
        for s in range(t):
            row[s] = before[s] * keep
        row[t] = ONE


@kernel
def _masked(x, m, shares, n):
    """The lower part of m [n,32], times R; 0 above."""
    for t in range(n):
        row, share = x[m + t * WIDE :], x[shares + t * WIDE :]
        for s in range(t + 1):
            row[s] *= share[s]
        for s in range(t + 1, n):
            row[s] = 0


@kernel
def _copy_in(matrix, x, place):
    """x [K,Vd] = matrix."""
    size = matrix.shape[1]
    for i in range(matrix.shape[0]):
        row, out = matrix[i], x[place + i * size :]
        for j in range(size):
            out[j] = row[j]


@kernel
def _copy_out(x, place, matrix):
    """matrix = x [K,Vd]."""
    size = matrix.shape[1]
    for i in range(matrix.shape[0]):
        row, out = x[place + i * size :], matrix[i]
        for j in range(size):
            out[j] = row[j]


@kernel
def _rows_in(rows, h, t0, n, x, place):
    """x [n,F] = those of a head."""
    size = rows.shape[2]
    for t in range(n):
        row, out = rows[t0 + t, h], x[place + t * size :]
        for j in range(size):
            out[j] = row[j]


@kernel
def _rows_out(x, place, h, t0, n, rows):
    """The rows of a head = x [n,F]."""
    size = rows.shape[2]
    for t in range(n):
        row, out = x[place + t * size :], rows[t0 + t, h]
        for j in range(size):
            out[j] = row[j]


@kernel
def _scale(x, a, by, step, n, size):
    """The rows of a [n,F], each times a number; the numbers are ``step`` apart."""
    for t in range(n):
        row, times = x[a + t * size :], x[by + t * step]
        for j in range(size):
            row[j] *= times
