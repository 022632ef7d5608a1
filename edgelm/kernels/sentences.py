"""One stored sentence: what its words are, how much each of them tells, and what the sentence predicts.

``edgelm.kernels.recall`` finds the sentences, calls these kernels, and says what their arguments are. Two more words
are used: a token *continues a word* if it belongs to one but does not begin it, and a word is *denied* if a word such
as "not" stands before it with nothing but words between them.
"""

from __future__ import annotations

import math

from edgelm.kernels.jit import kernel

WORDY, BEGINS, ENDS, LINE, QUESTION, PLURAL, LABEL, NEGATES = 1, 2, 4, 8, 16, 32, 64, 128
"""What a token does, as flags: it is part of a word; begins a word; ends a sentence; ends a line; ends a question; is
the letter s, which makes a plural of the word before it; is the colon after a label; is a word that denies, such as
"not".
"""
PIECE = WORDY | BEGINS
LONGEST_MATCH = 20
"""Tokens of a match that are compared, at most."""
PRIOR = 50000.0
"""Tokens that the frequencies of the language at large count as, beside those that were stored."""
COMMON = 4.0
"""Nats that are taken off what a word tells, so that words without content tell nothing."""
RARE = 1e-5
"""Frequency in the language at large that is assumed of a word of several tokens."""
FAINT = 0.3
"""A word of the question that weighs less is not followed to the sentences it stands in."""
DULL = 0.15
"""Factor of a sentence's prediction in a reply where it predicts punctuation or a very common word."""


@kernel
def word_key(key, token, is_first, vocab):
    """The key of the word that ``token`` is in, up to this token; 0 if the token is no part of a word.

    ``key`` is that up to the token before. ``is_first`` tells that the token is the first of its sentence, and so
    begins a word in any case. An "s" at the end leaves the key as it is, so that a plural has the key of its singular.
    """
    kinds, values, powers = vocab[1], vocab[3], vocab[4]
    if not kinds[token] & WORDY:
        return 0
    if is_first or key == 0 or kinds[token] & BEGINS:
        return values[token]
    if kinds[token] & PLURAL:
        return key
    return (key * powers[token] + values[token]) & 0x7FFFFFFF


@kernel
def information(slot, share, store):
    """How much a word tells: -log of its frequency, less ``COMMON``, in nats; 0 for a common word.

    slot is the row of the word. The frequency is counted in what was stored, to which ``PRIOR`` tokens are added in
    which the word has the frequency ``share``, that of the language at large.
    """
    sightings = store[4][slot] + PRIOR * share + 1
    return max(0.0, math.log((store[5][0] + PRIOR) / sightings) - COMMON)


@kernel
def goes_on(at, end, store, vocab):
    """Whether the token at position ``at`` continues a word; False from position ``end`` on."""
    return at < end and vocab[1][store[0][at & (store[0].shape[0] - 1)]] & PIECE == WORDY


@kernel
def _match_length(history, n, at, store, vocab):
    """Length of the match that ends at position ``at`` with the end of history[:n]; at most ``LONGEST_MATCH``.

    Tokens are compared by their ``folds``, so that capitals and the s of a plural do not matter.
    """
    ring, folds = store[0], vocab[0]
    reach, length = min(LONGEST_MATCH, n, at + 1, at + 1 - (store[5][0] - ring.shape[0])), 0
    while length < reach and folds[ring[(at - length) & (ring.shape[0] - 1)]] == folds[history[n - 1 - length]]:
        length += 1
    return length


@kernel
def read_sentence(history, n, k, as_reply, store, vocab, scratch):
    """Reads the sentence that starts at position top[k, 0] and completes its rows of ``top`` and ``best``.

    top[k, 1] becomes the position after its last token. top[k, 2] becomes the length of the longest match between the
    end of history[:n] and any part of the sentence, 0 if there is none (a single punctuation mark is none), and top[k,
    3] the position of the token after that match, -1 if there is none. A match in what is denied counts only if it is
    longer than those before it. best[k, 0] becomes the mass: the sum of the weights of all words that the sentence
    shares with the question.

    top[k, 2] becomes -1 if the sentence predicts nothing: in plain text if nothing matches; in a reply if it is a
    question, if it has no word but those of the line before, or if nothing matches and all its words are in the
    question.

    The ``marks`` of the words that were found become negative; the caller restores the sign before the next sentence.
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
def find_others(k, n_found, store, vocab, scratch):
    """Adds the words of sentence top[k] that are not in the question to ``found``, from index ``n_found`` on.

    A word stands there as its first token. Its share grows with what it tells and with how closely it follows a word of
    the question; it is ten times smaller where the word is denied. The shares of the words added sum to 1. Returns the
    number of ids in ``found`` after that, which is ``n_found`` if no word tells anything.
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
        if key == 0 or goes_on(at + 1, top[k, 1], store, vocab):
            continue
        slot = key & (marks.shape[0] - 1)
        if marks[slot] > FAINT:
            distance = 0
        elif marks[slot] == 0 and n_found < found.shape[0]:
            tells = information(slot, RARE if at > begun else vocab[2][token], store)
            found[n_found] = ring[begun & mask]
            shares[n_found] = tells * (0.05 + math.exp(-distance / 3)) * (0.1 if denied else 1.0)
            total += shares[n_found]
            n_found += 1
    for f in range(first, n_found):
        shares[f] /= max(total, 1e-30)
    return n_found if total > 0 else first


@kernel
def worth(at, store, vocab):
    """Factor, from ``DULL`` to 1, of a sentence's prediction of the token at position ``at`` in a reply.

    Punctuation and common words count little: they are left to the model, because a reply may end where the sentence
    went on.
    """
    ring, kinds = store[0], vocab[1]
    token = ring[at & (ring.shape[0] - 1)]
    if not kinds[token] & WORDY:
        return DULL
    if not kinds[token] & BEGINS or goes_on(at + 1, store[5][0], store, vocab):
        return 1.0
    slot = word_key(0, token, True, vocab) & (store[3].shape[0] - 1)
    return min(1.0, max(DULL, (information(slot, vocab[2][token], store) - 1.5) / 2))
