"""How a server gets one device's update out of a round of Flower's SecAgg+, in four ways.

The masks, their keys and shares are those of Bonawitz et al. 2017 (doi 10.1145/3133956.3133982) and Bell et al. 2020
(doi 10.1145/3372297.3417885), as Flower has them. Each function returns the update as the server has it: [n] of
float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.common import bytes_to_ndarray
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
from flwr.common.secure_aggregation.secaggplus_constants import Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import (
    pseudo_rand_gen,
    share_keys_plaintext_concat,
    share_keys_plaintext_separate,
)
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    public_key_to_bytes,
)

from tools.measure.secagg.members import CLIP, MOD_RANGE, SETUP, TARGET_RANGE, Member, Room
from tools.measure.secagg.seeds import find_pair, first_numbers

Array = np.ndarray
N_COMPARED = 32
"""First numbers of a masked update by which seeds are told from wrong ones."""


def by_seeds(room: Room, seeds: Array) -> tuple[Array, int]:
    """From what a server has after a round in which all did as they should: the seeds are tried.

    Parameters
    ----------
    room : Room
        After a round in which three devices answered to the end.
    seeds : ndarray
        [n] of uint32 to try; ``pair_seeds`` has all.

    Returns
    -------
    ndarray, int
        The update of the device with the lowest number, and how many pairs of seeds had the right first number.

    Raises
    ------
    LookupError
        None of the seeds fit.
    """
    answers, keys = room.got[Stage.UNMASK], room.got[Stage.SETUP]
    node_id = min(answers)
    shares: dict[int, list[bytes]] = {}
    for answer in answers.values():
        for owner, share in zip(answer[Key.NODE_ID_LIST], answer[Key.SHARE_LIST], strict=True):
            shares.setdefault(owner, []).append(share)
    # What the protocol tells a server: the own mask of a device that answered, and the keys of one that has gone.
    masked = _vector(room.got[Stage.COLLECT_MASKED_VECTORS][node_id])
    public = bytes_to_public_key(keys[node_id][Key.PUBLIC_KEY_1])
    pairwise = {
        owner: generate_shared_key(bytes_to_private_key(combine_shares(found)), public)
        for owner, found in shares.items()
        if owner not in answers
    }
    masked = _without(masked, node_id, combine_shares(shares[node_id]), pairwise)
    table = np.empty(len(seeds), np.uint64)
    first_numbers(seeds, table)
    table.sort()
    # The first number is how much the device counts, which it says in clear.
    compared = masked[:N_COMPARED].astype(np.uint32)
    one, two, tried = find_pair(table, compared, np.uint32(TARGET_RANGE), np.uint32(TARGET_RANGE))
    if one < 0:
        raise LookupError(f"no two of {len(seeds):,} seeds fit")
    for seed in (one, two):
        masked = masked + _mask(int(seed).to_bytes(4, "little"), len(masked))
    return _update(masked), tried


def by_keys(member: Member) -> Array:
    """The server makes the keys of the other devices itself: nothing says whose a key is."""
    others = {member.node_id + i: (generate_key_pairs(), generate_key_pairs()) for i in (1, 2)}
    own = member.ask(Stage.SETUP, SETUP)
    keys = {str(member.node_id): [own[Key.PUBLIC_KEY_1], own[Key.PUBLIC_KEY_2]]}
    keys |= {str(i): [public_key_to_bytes(one[1]), public_key_to_bytes(two[1])] for i, (one, two) in others.items()}
    sent = member.ask(Stage.SHARE_KEYS, keys)
    secrets = {
        i: generate_shared_key(two[0], bytes_to_public_key(own[Key.PUBLIC_KEY_2])) for i, (_, two) in others.items()
    }
    shares = [
        share_keys_plaintext_separate(decrypt(secrets[i], text))[2]
        for i, text in zip(sent[Key.DESTINATION_LIST], sent[Key.CIPHERTEXT_LIST], strict=True)
    ]
    empty = [encrypt(secrets[i], share_keys_plaintext_concat(i, member.node_id, b"", b"")) for i in others]
    forwarded = {Key.SOURCE_LIST: list(others), Key.CIPHERTEXT_LIST: empty}
    masked = _vector(member.ask(Stage.COLLECT_MASKED_VECTORS, forwarded))
    public = bytes_to_public_key(own[Key.PUBLIC_KEY_1])
    pairwise = {i: generate_shared_key(one[0], public) for i, (one, _) in others.items()}
    return _update(_without(masked, member.node_id, combine_shares(shares), pairwise))


def by_shares(members: Sequence[Member]) -> Array:
    """The server asks for both shares of the first device: as one that answered, and as one that has gone."""
    keys, masked = _until_masked(members, SETUP)
    ids = [member.node_id for member in members]
    wanted = {Key.ACTIVE_NODE_ID_LIST: ids, Key.DEAD_NODE_ID_LIST: ids[:1]}
    shares = [member.ask(Stage.UNMASK, wanted)[Key.SHARE_LIST] for member in members[1:]]
    seed, private = combine_shares([found[0] for found in shares]), combine_shares([found[-1] for found in shares])
    pairwise = {i: generate_shared_key(bytes_to_private_key(private), bytes_to_public_key(keys[i][0])) for i in ids[1:]}
    return _update(_without(masked[ids[0]], ids[0], seed, pairwise))


def by_ranges(members: Sequence[Member], clip: float) -> Array:
    """The server names ranges in which every mask is 0: the sign of each number of the first device, more or less.

    Parameters
    ----------
    members : sequence of Member
    clip : float
        What numbers are clipped to; one of half that size has its true sign in three of four rounds.
    """
    ranges = {Key.MOD_RANGE: 2, Key.TARGET_RANGE: 1, Key.CLIPPING_RANGE: clip}
    _, masked = _until_masked(members, {**SETUP, **ranges})
    return np.where(masked[members[0].node_id][1:] > 0, clip, -clip)


def _until_masked(members: Sequence[Member], setup: dict[str, Any]) -> tuple[dict[int, list[bytes]], dict[int, Array]]:
    """A round up to the masked updates, in which the server passes on all that it should; public keys, and updates."""
    keys = {}
    for member in members:
        own = member.ask(Stage.SETUP, setup)
        keys[member.node_id] = [own[Key.PUBLIC_KEY_1], own[Key.PUBLIC_KEY_2]]
    sources: dict[int, list[int]] = {i: [] for i in keys}
    texts: dict[int, list[bytes]] = {i: [] for i in keys}
    for member in members:
        sent = member.ask(Stage.SHARE_KEYS, {str(i): pair for i, pair in keys.items()})
        for i, text in zip(sent[Key.DESTINATION_LIST], sent[Key.CIPHERTEXT_LIST], strict=True):
            sources[i].append(member.node_id)
            texts[i].append(text)
    masked = {}
    for member in members:
        i = member.node_id
        forwarded = {Key.SOURCE_LIST: sources[i], Key.CIPHERTEXT_LIST: texts[i]}
        masked[i] = _vector(member.ask(Stage.COLLECT_MASKED_VECTORS, forwarded))
    return keys, masked


def _vector(answer: Any) -> Array:
    """The masked numbers of an answer, as one row of int64: how much the device counts, then its update."""
    return np.concatenate([bytes_to_ndarray(part).ravel() for part in answer[Key.MASKED_PARAMETERS]])


def _mask(seed: bytes, n_numbers: int) -> Array:
    return pseudo_rand_gen(seed, MOD_RANGE, [(n_numbers,)])[0]


def _without(masked: Array, node_id: int, seed: bytes, pairwise: dict[int, bytes]) -> Array:
    """What a device sent without its own mask, and without those that it shares with others whose keys are known."""
    masked = masked - _mask(seed, len(masked))
    for other, key in pairwise.items():
        masked = masked - np.sign(node_id - other) * _mask(key, len(masked))
    return masked % MOD_RANGE


def _update(numbers: Array) -> Array:
    """The update of numbers without masks."""
    return (numbers[1:] % MOD_RANGE) * (2 * CLIP / TARGET_RANGE) - CLIP
