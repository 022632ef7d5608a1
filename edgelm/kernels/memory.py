"""Counts of what followed each context of 1 to 5 tokens, mixed with the model's prediction and with recall.

Equations and layout: ``edgelm.memory.fast_memory``. tables is (words [V + 1] int64, keys [R] int64, ids [R, S]
uint16, counts [R, S] uint16, totals [R] uint16); gates [G, 2] float64 are those of one role.
"""

from __future__ import annotations

import math

from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.signature import D1, D2, I1, W1, W2, B, D, I

TABLES = (I1, I1, W2, W2, W1)
PROBES = 8
LONGEST = 5
"""Tokens of the longest context that is counted."""
BUCKETS = 15
"""Gates of each length of context; those of recall and of trust follow."""
COUNTED = (LONGEST + 1) * BUCKETS
KEEPS = (0.95, 0.995)
"""Shares of the two trusts, of late and of long, that are left a token later."""
LATE, LONG = (-1.0, -0.3, 0.3, 1.5, 4.0), (-2.5, -1.0, 0.5, 3.0, 8.0)
"""Nats of late and of long that part the gates of trust."""
TRUSTS = (len(LATE) + 1) * (len(LONG) + 1) + 1
DISTRUSTED = 2 * (len(LATE) + 1)
"""Gates of trust up to this one, those of long gains below -1, are not learned."""
MOST_GAIN = 2.0


@kernel
def find_context(history, n, order, keys, totals):
    """(row, key) of the last ``order`` ids of history[:n]; row < 0: not there, -row - 1 is where to put it.

    A context that finds no free row within PROBES takes that of the one seen least.
    """
    # A polynomial hash modulo a prime below 2^40: its products stay below 2^63.
    key = order + 1
    for back in range(1, order + 1):
        key = (key * 5000011 + history[n - back] + 1) % 1099511627689
    key += 1  # 0 marks a free row
    row = key & (keys.shape[0] - 1)
    place = row
    for _ in range(PROBES):
        if keys[row] == key:
            return row, key
        if keys[row] == 0:
            return -row - 1, key
        if totals[row] <= totals[place]:
            place = row
        row = (row + 1) & (keys.shape[0] - 1)
    return -place - 1, key


@kernel
def bucket(total, n_seen):
    """Which gate a context uses: by how often it was seen, and by how many ids followed it."""
    size = 0
    while size < 4 and (1 << size) < total:
        size += 1
    return size * 3 + min(n_seen, 3) - 1


@entry(D, D, D, D, returns=(D, D))
def trust_after(late, long, mixed, below):
    """Both trusts once an id was seen that had probability ``mixed`` with the memory and ``below`` without."""
    gain = math.log(max(mixed, 1e-30) / max(below, 1e-30))
    gain = min(MOST_GAIN, max(-MOST_GAIN, gain))
    return KEEPS[0] * late + gain, KEEPS[1] * long + gain


@entry(D, D, returns=(I,))
def trust_row(late, long):
    """Which gate the memory as a whole has, after those of recall; 0 where a text begins, which is not learned."""
    if late == 0 and long == 0:
        return 0
    row, column = 0, 1
    for least in LONG:
        row += long >= least
    for least in LATE:
        column += late >= least
    return row * (len(LATE) + 1) + column


@entry(I1, I, TABLES, D2, (I, I1, D1, D, I), D1)
def memory_read(history, n, tables, gates, recalled, p):
    """Mixes the memory into the model's distribution p [V] after history[:n], in place; the sum stays 1.

    recalled is (ids found, their ids, their probabilities, the sum of these, bucket). Trust is not applied.
    """
    words, keys, ids, counts, totals = tables
    n_words = words[-1]
    if n_words > 0:
        share = gates[bucket(n_words, 3), 0]
        for j in range(p.shape[0]):
            p[j] = (1 - share) * p[j] + share * words[j] / n_words
    for order in range(1, min(n, LONGEST) + 1):
        row, _ = find_context(history, n, order, keys, totals)
        if row < 0:
            continue
        n_seen, known = 0, 0
        while n_seen < ids.shape[1] and counts[row, n_seen] > 0:
            known += counts[row, n_seen]
            n_seen += 1
        share = gates[order * BUCKETS + bucket(totals[row], n_seen), 0] / totals[row]
        rest = 1 - share * known
        for j in range(p.shape[0]):
            p[j] *= rest
        for s in range(n_seen):
            p[ids[row, s]] += share * counts[row, s]
    n_found, found, shares, known_recall, kind = recalled
    if n_found > 0:
        share = gates[COUNTED + kind, 0]
        for j in range(p.shape[0]):
            p[j] *= 1 - share * known_recall
        for f in range(n_found):
            p[found[f]] += share * shares[f]


@entry(I1, I, I, (B, B), D, D, TABLES, D2, D2, D1, returns=(D, D))
def memory_learn(history, start, n, mode, late, long, tables, gates, recalled, p):
    """Predicts, then learns, history[start:n], id by id; the trust after it.

    p [n - start] holds the model's probability of each id and becomes that of the mixture. recalled
    [n - start, 3] is what ``recall_learn`` leaves. mode is (learn gates, learn counts): tables and gates are
    updated in place where asked for, otherwise only read.
    """
    learn_gates, _ = mode
    for t in range(start, n):
        below, n_words = p[t - start], tables[0][-1]
        mixed = _count_and_mix(history, t, below, mode, tables, gates)
        hit, known, kind = recalled[t - start, 0], recalled[t - start, 1], int(recalled[t - start, 2])
        if kind >= 0:
            mixed = _mix(gates[COUNTED + kind], hit, known, mixed, learn_gates)
        if n_words > 0:
            row = trust_row(late, long)
            gate = gates[gates.shape[0] - TRUSTS + row]
            # What little is trusted in a text that the memory has long been wrong about is not learned either: a
            # person whose texts repeat themselves would open those gates for everybody's.
            p[t - start] = _mix(gate, mixed, 1.0, below, learn_gates and row > DISTRUSTED)
            late, long = trust_after(late, long, mixed, below)
    return late, long


@kernel
def _count_and_mix(history, t, mixed, mode, tables, gates):
    """Mixes the counts after history[:t] over ``mixed``, the probability of history[t]; then counts it."""
    words, keys, ids, counts, totals = tables
    learn_gates, learn_counts = mode
    target, n_words = history[t], words[-1]
    if n_words > 0:
        mixed = _mix(gates[bucket(n_words, 3)], words[target] / n_words, 1.0, mixed, learn_gates)
    if learn_counts:
        words[target] += 1
        words[-1] += 1
    for order in range(1, min(t, LONGEST) + 1):
        row, key = find_context(history, t, order, keys, totals)
        n_seen, known, slot = 0, 0, -1
        if row >= 0:
            while n_seen < ids.shape[1] and counts[row, n_seen] > 0:
                known += counts[row, n_seen]
                if ids[row, n_seen] == target:
                    slot = n_seen
                n_seen += 1
            hit = counts[row, slot] / totals[row] if slot >= 0 else 0.0
            gate = gates[order * BUCKETS + bucket(totals[row], n_seen)]
            mixed = _mix(gate, hit, known / totals[row], mixed, learn_gates)
        elif learn_counts:
            row = -row - 1
            keys[row] = key
            totals[row] = 0
            counts[row] = 0
        if learn_counts:
            _count(row, slot, n_seen, target, ids, counts, totals)
    return mixed


@kernel
def _mix(gate, hit, known, below, learn):
    """gate [2] (weight, predictions seen): the mixture of a context's ``hit`` with what is ``below``."""
    share = gate[0]
    mixed = share * hit + (1 - share * known) * below
    if learn:
        # Online expectation maximisation: how much of the mixture was the memory's doing?
        gate[1] += 1
        step = max(1 / (gate[1] + 2), 0.01)
        gate[0] = min(0.995, max(0.001, share + step * (share * hit / mixed - share)))
    return mixed


@kernel
def _count(row, slot, n_seen, target, ids, counts, totals):
    slots = ids.shape[1]
    if slot < 0:
        # A full row gives up its rarest id; its past sightings stay in the total, so the rest backs off.
        slot = n_seen
        if slot == slots:
            slot = 0
            for s in range(1, slots):
                if counts[row, s] < counts[row, slot]:
                    slot = s
        ids[row, slot] = target
        counts[row, slot] = 0
    counts[row, slot] += 1
    totals[row] += 1
    if totals[row] >= 60000:
        totals[row] = 0
        for s in range(slots):
            counts[row, s] = counts[row, s] // 2 + (counts[row, s] > 0)
            totals[row] += counts[row, s]
