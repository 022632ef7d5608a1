"""Recall by content words: which tokens follow in the stored sentences that share words with the present text.

``recall_learn`` goes over the ids of an entry one by one: it predicts the id with ``recall_read`` and then stores it.
``recall_read`` works in five steps:

1. ``_ask`` collects the words of the question, which are those of the last two lines of the text, and weighs them.
2. ``_gather`` follows each word to the places where it was stored before, the newest first, and adds its weight to the
   sentence that it finds there.
3. ``_choose`` keeps the ``ATTENDED`` sentences with the largest sums.
4. ``read_sentence`` reads each of them in full and looks for what in it matches the end of the text.
5. ``_weigh`` gives each sentence its weight and collects the ids that it predicts.

The equations are in ``edgelm.memory.fast_memory``. Most kernels take some of these arguments:

- history, [>= n] int64: the ids of the text; history[:n] is read.
- store: the stored tokens, and for each word the chain of its sightings. ``begin_entry`` updates it in place, and so
  does ``recall_learn`` where it is told to store; all others read it.
- vocab: what is known of each of the V ids; read.
- scratch: the workspace. It is overwritten, but on a call ``starts`` must hold -1 and ``marks`` and ``asked`` must hold
  0 throughout; ``recall_read`` and ``recall_learn`` leave them so.

store, vocab and scratch are tuples of arrays. ``edgelm.memory.recall_arrays`` makes and describes them, and says what
is meant by a position and by the row of a word. Nothing is allocated or raised, and no bound is checked: the caller
sees to it that every id is from 0 to V - 1, and that the lengths of the ring and of the hash tables are powers of two.
"""

from __future__ import annotations

import math

from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.sentences import (
    BEGINS,
    ENDS,
    FAINT,
    LABEL,
    LINE,
    PIECE,
    PLURAL,
    RARE,
    WORDY,
    find_others,
    goes_on,
    information,
    read_sentence,
    word_key,
    worth,
)
from edgelm.kernels.signature import B1, D1, D2, I1, I2, J1, U1, W1, B, D, I

STORE = (W1, U1, J1, J1, J1, I1)
VOCAB = (W1, U1, D1, I1, I1)
SCRATCH = (D1, B1, I1, D1, I1, D1, I1, I2, D2, I1, D1)
WINDOW = 40
"""Tokens of the present text in which words of the question are looked for, at most."""
SENTENCE = 48
"""Tokens of the longest sentence."""
ATTENDED = 10
"""Sentences that are read in full."""
DEPTH, LEARN_DEPTH = 512, 24
"""Sightings of a word that are followed at most, newest first; fewer while learning, which must be quick."""
FADES = 0.985
"""Factor of the weight of a word for each token that it stands further back."""
SHARPNESS = 1.5
"""Nats by which the logarithm of a sentence's weight grows with each nat of its mass."""
NEAR, NEWER = 0.4, 0.05
"""A sentence is multiplied by ``NEWER`` for each newer one whose mass is above its own less ``NEAR`` (nats) and that
matches as well: what was said last is right."""
LIGHT = 1e-3
"""A sentence without a match that weighs less than this predicts nothing; the largest mass alone gives a weight of 1.
"""
ENOUGH = 5
"""A match of this length counts as much as any longer one."""
COVERAGES = (0.35, 0.6, 0.95)
MASSES = (2.5, 7.0, 12.0)
MATCHES = (2, 4, 6, 10, 16)
"""Bounds of the buckets: share of the question covered, its mass, tokens matched."""
KINDS = 4 + len(MATCHES)
RECALL_BUCKETS = KINDS * (len(COVERAGES) + 1) * (len(MASSES) + 1)


@entry(STORE)
def begin_entry(store):
    """Stores id 0, with which every entry begins, so that the next token starts a new sentence and a new word.

    store is updated in place.
    """
    ring, places, before, _, _, cursor = store
    i = cursor[0] & (ring.shape[0] - 1)
    ring[i], places[i], before[i] = 0, 0, -1
    cursor[0] += 1
    cursor[1] = 0
    cursor[2] = 0


@kernel
def _store_token(token, store, vocab):
    """Stores a token at the end of the ring, where it overwrites the oldest one, and counts the word so far.

    A sentence ends after a token that is marked ``ENDS``, and in any case after ``SENTENCE`` tokens.
    """
    ring, places, before, heads, seen, cursor = store
    at, place = cursor[0], cursor[1]
    i = at & (ring.shape[0] - 1)
    ring[i], places[i], before[i] = token, place, -1
    key = word_key(cursor[2], token, place == 0, vocab)
    if key > 0:
        slot = key & (heads.shape[0] - 1)
        before[i] = heads[slot]
        heads[slot] = at
        seen[slot] += 1
    is_over = vocab[1][token] & ENDS or place + 1 == SENTENCE
    cursor[0] = at + 1
    cursor[1] = 0 if is_over else place + 1
    cursor[2] = 0 if is_over else key


@kernel
def _ask(history, n, store, vocab, scratch):
    """Collects the words of the last two lines of history[:n], in at most its last ``WINDOW`` tokens.

    Returns (number of different words, sum of their weights, number of words in the last line). ``words`` and
    ``weights`` are overwritten; ``marks`` and ``asked`` are set in the rows of these words. The word before a colon is
    left out, because it is the label of the line.
    """
    kinds, shares = vocab[1], vocab[2]
    marks, asked, words, weights = scratch[0], scratch[1], scratch[2], scratch[3]
    first, lines, line = n, 0, 0
    while first > 0 and n - first < WINDOW and lines < 2:
        first -= 1
        if kinds[history[first]] & LINE:
            lines += 1
            line = max(line, first)
    while 0 < first < n and kinds[history[first]] & PIECE == WORDY:
        first += 1
    count, total, key, share, said = 0, 0.0, 0, 0.0, 0
    for t in range(first, n):
        kind, after = kinds[history[t]], kinds[history[t + 1]] if t + 1 < n else 0
        if key == 0 or kind & BEGINS:
            share = shares[history[t]]
        elif not kind & PLURAL:
            share = RARE
        key = word_key(key, history[t], False, vocab)
        # The label of a line says nothing about it.
        if key == 0 or after & PIECE == WORDY or after & LABEL:
            continue
        said += t > line
        slot = key & (marks.shape[0] - 1)
        if marks[slot] == 0:
            weights[count] = information(slot, share, store) * FADES ** (n - 1 - t) + 1e-9
            marks[slot], asked[slot], words[count] = weights[count], t < line, slot
            total += weights[count]
            count += 1
    return count, total, said


@kernel
def _gather(count, depth, skipped, store, scratch):
    """Sums up, for each stored sentence, the weights of the words that it shares with the question.

    The first ``count`` of ``words`` are followed, but for those that weigh less than ``FAINT``, each through at most
    ``depth`` sightings. The sentence that starts at position ``skipped`` is left out. The result is the hash table
    (``starts``, ``masses``), whose rows in use are listed in ``slots``; returns how many there are.
    """
    _, places, before, heads, _, cursor = store
    words, weights, starts, masses, slots = scratch[2], scratch[3], scratch[4], scratch[5], scratch[6]
    mask, n_slots, used, oldest = places.shape[0] - 1, starts.shape[0], 0, max(0, cursor[0] - places.shape[0])
    for w in range(count):
        at, last = int(heads[words[w]]), -1
        for _ in range(depth if weights[w] >= FAINT else 0):
            if at < oldest:
                break
            start = at - int(places[at & mask])
            if start != last and start != skipped and start >= oldest:
                last = start
                slot = (start * 40503) & (n_slots - 1)
                while starts[slot] >= 0 and starts[slot] != start:
                    slot = (slot + 1) & (n_slots - 1)
                if starts[slot] < 0 and used < n_slots // 2:
                    starts[slot], masses[slot], slots[used] = start, 0.0, slot
                    used += 1
                if starts[slot] == start:
                    masses[slot] += weights[w]
            at = int(before[at & mask])
    return used


@kernel
def _choose(used, scratch):
    """Writes the ``ATTENDED`` sentences with the largest sums to ``top`` and ``best``, in falling order of the sum.

    Of equal sums the newer sentence comes first. ``used`` is what ``_gather`` returned; its table is emptied, that is,
    ``starts`` is -1 again. Returns the number of sentences written: top[k, 0] is the start, best[k, 0] the sum.
    """
    starts, masses, slots, top, best = scratch[4], scratch[5], scratch[6], scratch[7], scratch[8]
    n_top = 0
    for u in range(used):
        start, mass = starts[slots[u]], masses[slots[u]]
        starts[slots[u]] = -1
        if n_top == ATTENDED and (mass, start) <= (best[n_top - 1, 0], top[n_top - 1, 0]):
            continue
        place = min(n_top, ATTENDED - 1)
        while place > 0 and (mass, start) > (best[place - 1, 0], top[place - 1, 0]):
            top[place, 0], best[place, 0] = top[place - 1, 0], best[place - 1, 0]
            place -= 1
        top[place, 0], best[place, 0] = start, mass
        n_top = min(n_top + 1, ATTENDED)
    return n_top


@kernel
def _weigh(n_top, as_reply, store, vocab, scratch):
    """Weighs the first ``n_top`` sentences of ``top``, as ``read_sentence`` left them, and collects what they predict.

    A sentence that matches the end of the text predicts the one token after the match; in a reply, one that does not
    match predicts its words that are not in the question. Writes ``found``, ``shares`` and best[:, 1]. Returns (number
    of ids in ``found``, sum of ``shares``, the row of ``top`` with the largest weight or -1 if none predicts anything).
    The sum is 1 for plain text; in a reply it is less where ``worth`` left something to the model.
    """
    ring, top, best, found, shares = store[0], scratch[7], scratch[8], scratch[9], scratch[10]
    heaviest, n_found, winner, total, known = 0.0, 0, -1, 0.0, 0.0
    for k in range(n_top):
        if top[k, 2] >= 0:
            heaviest = max(heaviest, best[k, 0])
    for k in range(n_top):
        match, first = top[k, 2], n_found
        if match < 0:
            continue
        weight = math.exp(SHARPNESS * (best[k, 0] - heaviest)) * (1.0 + 3 * min(match, ENOUGH))
        for j in range(n_top):
            is_near = top[j, 0] > top[k, 0] and best[j, 0] > best[k, 0] - NEAR
            if is_near and min(top[j, 2], ENOUGH) >= min(match, ENOUGH):
                weight *= NEWER
        if match > 0 and n_found < found.shape[0]:
            found[n_found] = ring[top[k, 3] & (ring.shape[0] - 1)]
            shares[n_found] = worth(top[k, 3], store, vocab) if as_reply else 1.0
            n_found += 1
        elif match == 0 and weight > LIGHT:
            n_found = find_others(k, n_found, store, vocab, scratch)
        if n_found == first:
            continue
        best[k, 1] = weight
        if winner < 0 or weight > best[winner, 1]:
            winner = k
        total += weight
        for f in range(first, n_found):
            shares[f] *= weight
    for f in range(n_found):
        shares[f] /= total
        known += shares[f]
    return n_found, known, winner


@kernel
def _open_sentence(history, n, store):
    """Position at which the unfinished sentence at the end of the store starts, or -1 if history[:n] is another text.

    The sentence that is being learned is part of the question, so recall must not find it. It is recognised by its last
    tokens, three at most, with which history[:n] ends too.
    """
    ring, cursor = store[0], store[5]
    for back in range(1, min(3, n, cursor[1]) + 1):
        if history[n - back] != ring[(cursor[0] - back) & (ring.shape[0] - 1)]:
            return -1
    return cursor[0] - cursor[1]


@entry(I1, I, B, I, STORE, VOCAB, SCRATCH, returns=(I, D, I))
def recall_read(history, n, as_reply, depth, store, vocab, scratch):
    """Predicts the id after history[:n] from the stored sentences that share words with it. Nothing is stored.

    Parameters
    ----------
    history, n : ndarray [>= n] of int64, and int
        The text is history[:n]. Read.
    as_reply : bool
        Whether the assistant speaks. Then questions are not recalled, and a sentence may answer without a match.
    depth : int
        Sightings of each word that are followed at most, the newest first.
    store, vocab, scratch : tuple of ndarray
        store and vocab are read. scratch is overwritten.

    Returns
    -------
    n_found, known : int, float
        The prediction is ``found[:n_found]`` with the probabilities ``shares[:n_found]``, both in scratch until the
        next call; known is their sum, at most 1. An id may be there several times: its probabilities add up.
    bucket : int
        Which gate of recall applies, from 0 to ``RECALL_BUCKETS`` - 1, by the sentence that weighs most: how it
        matches, how much of the question it covers, and its mass. It means nothing where ``n_found`` is 0.
    """
    marks, words, top, best = scratch[0], scratch[2], scratch[7], scratch[8]
    count, total, said = _ask(history, n, store, vocab, scratch)
    n_top = _choose(_gather(count, depth, _open_sentence(history, n, store), store, scratch), scratch)
    for k in range(n_top):
        read_sentence(history, n, k, as_reply, store, vocab, scratch)
        for w in range(count):
            marks[words[w]] = abs(marks[words[w]])
    n_found, known, winner = _weigh(n_top, as_reply, store, vocab, scratch)
    for w in range(count):
        marks[words[w]], scratch[1][words[w]] = 0.0, False
    if n_found == 0:
        return 0, 0.0, 0
    match, is_piece = top[winner, 2], goes_on(top[winner, 3], store[5][0], store, vocab)
    kind = 3
    if match == 0:
        kind = 1 if said == 0 else 0
    elif vocab[1][history[n - 1]] & WORDY and is_piece:
        kind = 2
    else:
        while kind + 1 < KINDS and match >= MATCHES[kind - 3]:
            kind += 1
    cover, size = 0, 0
    while cover < len(COVERAGES) and best[winner, 0] >= COVERAGES[cover] * total:
        cover += 1
    while size < len(MASSES) and best[winner, 0] >= MASSES[size]:
        size += 1
    return n_found, known, (kind * (len(COVERAGES) + 1) + cover) * (len(MASSES) + 1) + size


@entry(I1, I, I, (B, B, B), STORE, VOCAB, SCRATCH, D2)
def recall_learn(history, start, n, mode, store, vocab, scratch, recalled):
    """Goes over history[start:n] and, for each id t in turn, predicts it from history[:t] and then stores it.

    Parameters
    ----------
    history : ndarray [>= n] of int64
        One entry, its first id being 0. Read.
    start : int
        At least 1. Whoever stores has stored history[:start] before: by ``begin_entry``, then by this.
    n : int
        End of the ids that are gone over.
    mode : tuple of three bool
        Whether to predict; whether to do so as for a reply; whether to store. While storing, a word is followed through
        ``LEARN_DEPTH`` sightings, otherwise through ``DEPTH``.
    store, vocab, scratch : tuple of ndarray
        store is updated in place where ids are stored, otherwise read. vocab is read. scratch is overwritten.
    recalled : ndarray [n - start, 3] of float64
        Overwritten. A row holds the probability of the id, the sum of the probabilities of all ids found, and the
        bucket of ``recall_read``; it is (0, 0, -1) where nothing was found or asked for.
    """
    does_recall, as_reply, does_store = mode
    found, shares, cursor, depth = scratch[9], scratch[10], store[5], LEARN_DEPTH if does_store else DEPTH
    for t in range(start, n):
        n_found, hit, known, bucket = 0, 0.0, 0.0, 0
        if does_recall and cursor[0] > 1:
            n_found, known, bucket = recall_read(history, t, as_reply, depth, store, vocab, scratch)
        for f in range(n_found):
            if found[f] == history[t]:
                hit += shares[f]
        row = t - start
        recalled[row, 0], recalled[row, 1], recalled[row, 2] = hit, known, bucket if n_found > 0 else -1
        if does_store:
            _store_token(history[t], store, vocab)
