"""Recall by content words: what the sentences that share words with the present text say next.

``recall_learn`` goes over the ids of an entry: it recalls what may be next (``recall_read``), then stores the id.
``recall_read`` weighs the words of the last two lines (``_ask``), follows each to where it stood before and adds up
what every sentence shares (``_gather``), keeps the ATTENDED best (``_choose``), reads them (``_read_sentence``), and
weighs what they say (``_weigh``). The equations are in ``edgelm.memory.fast_memory``; the tuples of arrays are
described, and made, in ``edgelm.memory.recall_arrays``. history [n] int64 and vocab (what each id is) are read. store
(the tokens, and the chains of their words) is updated in place by ``begin_entry`` and where ``recall_learn`` stores,
else read. scratch, the workspace, is overwritten; every call leaves its starts at -1, its marks and asked at 0, and
expects them so. Nothing is allocated and nothing raised: the caller sees to it that ids are below V and that sizes are
powers of two.
"""

from __future__ import annotations

import math

from edgelm.kernels.jit import entry, kernel
from edgelm.kernels.signature import B1, D1, D2, I1, I2, J1, U1, W1, B, D, I

STORE = (W1, U1, J1, J1, J1, I1)
VOCAB = (W1, U1, D1, I1, I1)
SCRATCH = (D1, B1, I1, D1, I1, D1, I1, I2, D2, I1, D1)
WORDY, BEGINS, ENDS, LINE, QUESTION, PLURAL, LABEL, NEGATES = 1, 2, 4, 8, 16, 32, 64, 128
"""What a token does: be part of a word; begin one; end a sentence; a line; a question; add an s; end a label; deny."""
PIECE = WORDY | BEGINS
WINDOW = 40
"""Tokens of the present text that are looked back upon, at most."""
SENTENCE = 48
"""Tokens of the longest sentence."""
ATTENDED, LONGEST_MATCH = 10, 20
DEPTH, LEARN_DEPTH = 512, 24
"""Sightings of a word that are followed, newest first; fewer while learning, which must be quick."""
PRIOR = 50000.0
"""Tokens of reading that the shares of words which the vocabulary implies are worth."""
COMMON = 4.0
"""Nats that a word must tell before it counts; less is told by words of no content."""
RARE = 1e-5
"""Share of a word that takes several tokens."""
FAINT = 0.3
"""A word that weighs less is not followed."""
FADES = 0.985
"""What a word keeps of its weight for each token that it stands further back."""
SHARPNESS = 1.5
"""How much faster than its mass a sentence's weight grows, in nats."""
NEAR, NEWER = 0.4, 0.05
"""Of sentences whose masses are this near, an older one weighs this little: what was said last is right."""
LIGHT = 1e-3
"""Sentences of less weight, the heaviest having 1, are not searched for answers."""
ENOUGH = 5
"""A match of this length is as good as any longer one."""
DULL = 0.15
"""Say that a sentence keeps in a reply where a sign or a common word comes next."""
COVERAGES = (0.35, 0.6, 0.95)
MASSES = (2.5, 7.0, 12.0)
MATCHES = (2, 4, 6, 10, 16)
"""Bounds of the buckets: share of the question covered, its mass, tokens matched."""
KINDS = 4 + len(MATCHES)
RECALL_BUCKETS = KINDS * (len(COVERAGES) + 1) * (len(MASSES) + 1)


@kernel
def word_key(key, token, is_first, vocab):
    """Key of the word so far after ``token``, when ``key`` was that before; 0 in no word."""
    kinds, values, powers = vocab[1], vocab[3], vocab[4]
    if not kinds[token] & WORDY:
        return 0
    if is_first or key == 0 or kinds[token] & BEGINS:
        return values[token]
    if kinds[token] & PLURAL:
        return key
    return (key * powers[token] + values[token]) & 0x7FFFFFFF


@entry(STORE)
def begin_entry(store):
    """Stores id 0, which begins an entry; sentences do not reach across it."""
    ring, places, before, _, _, cursor = store
    i = cursor[0] & (ring.shape[0] - 1)
    ring[i], places[i], before[i] = 0, 0, -1
    cursor[0] += 1
    cursor[1] = 0
    cursor[2] = 0


@kernel
def _store_token(token, store, vocab):
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
def _information(slot, share, store):
    """Nats that a word tells beyond those of common words; share is that in the language at large."""
    sightings = store[4][slot] + PRIOR * share + 1
    return max(0.0, math.log((store[5][0] + PRIOR) / sightings) - COMMON)


@kernel
def _goes_on(at, end, store, vocab):
    """Whether the token at a position of the ring, if it is before ``end``, goes on a word."""
    return at < end and vocab[1][store[0][at & (store[0].shape[0] - 1)]] & PIECE == WORDY


@kernel
def _ask(history, n, store, vocab, scratch):
    """Marks the words of the last two lines of history[:n]: (words, their weight, how many the last line has)."""
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
            weights[count] = _information(slot, share, store) * FADES ** (n - 1 - t) + 1e-9
            marks[slot], asked[slot], words[count] = weights[count], t < line, slot
            total += weights[count]
            count += 1
    return count, total, said


@kernel
def _gather(count, depth, skipped, store, scratch):
    """Adds up how much the sentences share with the ``count`` words marked; their number.

    Sentences are told apart by where they start; ``skipped`` is none.
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
    """Puts the starts of the ATTENDED sentences that share most into ``top``, newer ones first; their number."""
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
def _match_length(history, n, at, store, vocab):
    """How many of the last ids of history[:n] stand in the ring up to and at a position."""
    ring, folds = store[0], vocab[0]
    reach, length = min(LONGEST_MATCH, n, at + 1, at + 1 - (store[5][0] - ring.shape[0])), 0
    while length < reach and folds[ring[(at - length) & (ring.shape[0] - 1)]] == folds[history[n - 1 - length]]:
        length += 1
    return length


@kernel
def _read_sentence(history, n, k, as_reply, store, vocab, scratch):
    """Makes top[k] (start, end, longest match, position of what follows it) and best[k, 0] the whole mass.

    The match is -1 if the sentence has nothing to tell.
    """
    ring, places, _, _, _, cursor = store
    folds, kinds = vocab[0], vocab[1]
    marks, asked, top = scratch[0], scratch[1], scratch[7]
    start, mask, last = top[k, 0], ring.shape[0] - 1, history[n - 1]
    at, key, mass, news, fresh, match, position = start, 0, 0.0, 0, 0, 0, -1
    token, fold = ring[start & mask], folds[last]
    is_over, denied = False, False
    while not is_over:
        after = ring[(at + 1) & mask] if at + 1 < cursor[0] else 0
        key = word_key(key, token, at == start, vocab)
        if key > 0:
            slot = key & (marks.shape[0] - 1)
            mark = marks[slot]
            if mark > 0:
                mass += mark
                marks[slot] = -mark
            if kinds[after] & PIECE != WORDY:
                news += not asked[slot]
                fresh += mark == 0
        denied = (denied and key > 0) or kinds[token] & NEGATES > 0
        # A sign alone is followed by anything.
        if folds[token] == fold and after > 0:
            length = _match_length(history, n, at, store, vocab)
            if length + (not denied) > match and (length > 1 or kinds[token] & WORDY):
                match, position = length, at + 1
        at += 1
        is_over = after == 0 or places[at & mask] == 0
        ended, token = kinds[token], after
    # The question itself was learned before its answer is looked for, and so were earlier ones.
    is_question = as_reply and (news == 0 or ended & QUESTION)
    top[k, 1], top[k, 3] = at, position
    top[k, 2] = -1 if is_question or (match == 0 and (fresh == 0 or not as_reply)) else match
    scratch[8][k, 0] = mass


@kernel
def _find_others(k, n_found, store, vocab, scratch):
    """Finds what sentence top[k] says beyond the words asked: how much was found by then; shares add up to 1.

    A word counts by what it tells, and by how close it stands behind a word asked; one denied hardly does.
    """
    ring, kinds, marks, top = store[0], vocab[1], scratch[0], scratch[7]
    found, shares = scratch[9], scratch[10]
    mask, first, total, key, begun, distance, denied = ring.shape[0] - 1, n_found, 0.0, 0, 0, 20, False
    for at in range(top[k, 0], top[k, 1]):
        token = ring[at & mask]
        if key == 0 or kinds[token] & BEGINS:
            begun = at
        key = word_key(key, token, at == top[k, 0], vocab)
        distance += 1
        denied = (denied and key > 0) or kinds[token] & NEGATES > 0
        if key == 0 or _goes_on(at + 1, top[k, 1], store, vocab):
            continue
        slot = key & (marks.shape[0] - 1)
        if marks[slot] > FAINT:
            distance = 0
        elif marks[slot] == 0 and n_found < found.shape[0]:
            tells = _information(slot, RARE if at > begun else vocab[2][token], store)
            found[n_found] = ring[begun & mask]
            shares[n_found] = tells * (0.05 + math.exp(-distance / 3)) * (0.1 if denied else 1.0)
            total += shares[n_found]
            n_found += 1
    for f in range(first, n_found):
        shares[f] /= max(total, 1e-30)
    return n_found if total > 0 else first


@kernel
def _worth(at, store, vocab):
    """How much of its say a sentence has in a reply about the token at a position.

    Signs and common words are the model's business: a reply may end where the sentence went on.
    """
    ring, kinds = store[0], vocab[1]
    token = ring[at & (ring.shape[0] - 1)]
    if not kinds[token] & WORDY:
        return DULL
    if not kinds[token] & BEGINS or _goes_on(at + 1, store[5][0], store, vocab):
        return 1.0
    slot = word_key(0, token, True, vocab) & (store[3].shape[0] - 1)
    return min(1.0, max(DULL, (_information(slot, vocab[2][token], store) - 1.5) / 2))


@kernel
def _weigh(n_top, as_reply, store, vocab, scratch):
    """(ids found, sum of their shares, the sentence that weighs most or -1)."""
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
            shares[n_found] = _worth(top[k, 3], store, vocab) if as_reply else 1.0
            n_found += 1
        elif match == 0 and weight > LIGHT:
            n_found = _find_others(k, n_found, store, vocab, scratch)
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
    """Start of the sentence being learned, if history[:n] ends as it does; it would only find itself."""
    ring, cursor = store[0], store[5]
    for back in range(1, min(3, n, cursor[1]) + 1):
        if history[n - back] != ring[(cursor[0] - back) & (ring.shape[0] - 1)]:
            return -1
    return cursor[0] - cursor[1]


@entry(I1, I, B, I, STORE, VOCAB, SCRATCH, returns=(I, D, I))
def recall_read(history, n, as_reply, depth, store, vocab, scratch):
    """(ids found, sum of their shares, bucket): what the sentences that share words with history[:n] say next.

    ``found`` and ``shares`` of the scratch hold the ids, one perhaps several times, and their probabilities.
    """
    marks, words, top, best = scratch[0], scratch[2], scratch[7], scratch[8]
    count, total, said = _ask(history, n, store, vocab, scratch)
    n_top = _choose(_gather(count, depth, _open_sentence(history, n, store), store, scratch), scratch)
    for k in range(n_top):
        _read_sentence(history, n, k, as_reply, store, vocab, scratch)
        for w in range(count):
            marks[words[w]] = abs(marks[words[w]])
    n_found, known, winner = _weigh(n_top, as_reply, store, vocab, scratch)
    for w in range(count):
        marks[words[w]], scratch[1][words[w]] = 0.0, False
    if n_found == 0:
        return 0, 0.0, 0
    match, is_piece = top[winner, 2], _goes_on(top[winner, 3], store[5][0], store, vocab)
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
    """Recalls, then stores, history[start:n], id by id; mode is (recall, as a reply, store).

    recalled [n - start, 3] becomes, for each id, its probability, that of all ids found, and the bucket, -1 where
    nothing was found.
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
