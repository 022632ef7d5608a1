"""Why there is no secure aggregation: what a server gets out of a round of Flower's SecAgg+.

These are facts about Flower that decision 20 rests on. If one of them fails with a newer Flower, the decision is to be
looked at again.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

pytest.importorskip("flwr", reason="the swarm needs Flower: pip install 'edgelm[swarm]'")
# Before any other part of Flower is imported: it keeps Flower silent.
pytest.importorskip("edgelm.swarm.flower")

from flwr.common.secure_aggregation.crypto.shamir import create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.secaggplus_constants import Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes

from tools.measure.secagg.attacks import by_keys, by_ranges, by_seeds, by_shares
from tools.measure.secagg.members import CLIP, MOD_RANGE, SETUP, TARGET_RANGE, Member, Room, identify
from tools.measure.secagg.seeds import PAIR_BITS, first_numbers, pair_seeds

pytestmark = pytest.mark.jit_only
STEP = 2 * CLIP / TARGET_RANGE
SIZE = 0.002


def _members(n_devices: int) -> list[Member]:
    identify()
    rng = np.random.default_rng(0)
    return [Member(11 + i, rng.normal(0.0, SIZE, 2000).astype(np.float32)) for i in range(n_devices)]


@pytest.fixture
def members() -> list[Member]:
    """Three devices, the first of them with the lowest number."""
    return _members(3)


def _folded(key: bytes) -> int:
    """The seed that Flower makes of a key."""
    return int(np.bitwise_xor.reduce(np.frombuffer(key, "<u4")))


def test_masks_of_different_keys_are_the_same_if_their_exclusive_or_is() -> None:
    key, other = bytes(range(32)), bytes(28) + _folded(bytes(range(32))).to_bytes(4, "little")
    assert key != other
    one, two = (pseudo_rand_gen(k, MOD_RANGE, [(1000,)])[0] for k in (key, other))
    np.testing.assert_array_equal(one, two)


def test_a_key_of_two_devices_leaves_28_bits() -> None:
    pairs = list(combinations([generate_key_pairs() for _ in range(12)], 2))
    folded = [_folded(generate_shared_key(one[0], two[1])) for one, two in pairs]
    assert not np.bitwise_or.reduce(folded) & 0x80808080
    assert np.bitwise_or.reduce(pair_seeds((1 << PAIR_BITS) - 2, 1 << PAIR_BITS)) == 0x7F7F7F7F
    assert len(set(pair_seeds(0, 1 << 16).tolist())) == 1 << 16


def test_the_twister_that_is_tried_is_that_of_the_masks() -> None:
    seeds = pair_seeds(70_000, 70_600)
    found = np.empty(len(seeds), np.uint64)
    first_numbers(seeds, found)
    wanted = [int(pseudo_rand_gen(int(s).to_bytes(4, "little"), MOD_RANGE, [(1,)])[0][0]) << 32 | int(s) for s in seeds]
    assert found.tolist() == wanted


@pytest.mark.parametrize(("n_devices", "gone"), [(3, ()), (5, (12, 14))])
def test_a_server_that_does_as_it_should_has_the_update_of_one_device(n_devices: int, gone: tuple[int, ...]) -> None:
    members = _members(n_devices)
    room = Room(members, gone)
    mean = room.run_round()
    left = [member.update for member in members if member.node_id not in gone]
    assert np.abs(mean - np.mean(left, 0)).max() < STEP
    # `python -m tools.measure.secagg` tries all of them; here those of this round are among some thousand.
    others = np.random.default_rng(1).integers(0, 1 << PAIR_BITS, 5000)
    seeds = np.concatenate([pair_seeds(int(i), int(i) + 1) for i in others])
    with pytest.raises(LookupError):
        by_seeds(room, seeds)
    own = [_folded(key) for key in members[0].pair_keys]
    found, _ = by_seeds(room, np.unique(np.concatenate([seeds, np.array(own, np.uint32)])))
    assert np.abs(found - members[0].update).max() < STEP


def test_a_device_takes_keys_that_the_server_made(members: list[Member]) -> None:
    assert np.abs(by_keys(members[0]) - members[0].update).max() < STEP


def test_devices_give_both_shares_of_another(members: list[Member]) -> None:
    assert np.abs(by_shares(members) - members[0].update).max() < STEP


def test_a_device_takes_ranges_in_which_masks_are_nothing(members: list[Member]) -> None:
    # One number is right in two of three; by chance the correlation of 2,000 is below 0.1.
    assert np.corrcoef(by_ranges(members, 2 * SIZE), members[0].update)[0, 1] > 0.4


def test_a_device_takes_a_threshold_of_one(members: list[Member]) -> None:
    secret = bytes(range(32))
    assert all(share[4:36] == secret for share in create_shares(secret, 1, 3))
    own = members[0].ask(Stage.SETUP, {**SETUP, Key.THRESHOLD: 1})
    keys = {"11": [own[Key.PUBLIC_KEY_1], own[Key.PUBLIC_KEY_2]]}
    keys |= {str(i): [public_key_to_bytes(generate_key_pairs()[1]) for _ in range(2)] for i in (12, 13)}
    assert len(members[0].ask(Stage.SHARE_KEYS, keys)[Key.CIPHERTEXT_LIST]) == 2


def test_what_the_mod_does_refuse(members: list[Member]) -> None:
    with pytest.raises(ValueError, match="expect setup stage"):
        members[0].ask(Stage.UNMASK, {Key.ACTIVE_NODE_ID_LIST: [11, 12], Key.DEAD_NODE_ID_LIST: []})
    own = members[0].ask(Stage.SETUP, SETUP)
    same = [own[Key.PUBLIC_KEY_1], own[Key.PUBLIC_KEY_2]]
    with pytest.raises(ValueError, match="identical"):
        members[0].ask(Stage.SHARE_KEYS, {"11": same, "12": same})
