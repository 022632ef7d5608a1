"""Devices that take part in Flower's SecAgg+ through its mod, and its own server, all in one process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, RECORD_KEY_STATE, Key, Stage
from flwr.compat.common import recorddict_compat as compat
from flwr.server import LegacyContext, SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key

from edgelm.swarm.flower import (
    ConfigRecord,
    Context,
    Message,
    RecordDict,
    TaskIdentity,
    get_all_nested_objects,
    inflate_object_from_contents,
)

Array = np.ndarray
RUN_ID, SERVER_ID = 1, 1
CLIP, TARGET_RANGE, MOD_RANGE = 1.0, 1 << 22, 1 << 32
"""A number is clipped to ``CLIP`` and rounded to one of ``TARGET_RANGE`` steps; sums are taken modulo ``MOD_RANGE``."""
SETUP = {
    Key.SAMPLE_NUMBER: 3, Key.SHARE_NUMBER: 3, Key.THRESHOLD: 2, Key.CLIPPING_RANGE: CLIP,
    Key.TARGET_RANGE: TARGET_RANGE, Key.MOD_RANGE: MOD_RANGE, Key.MAX_WEIGHT: 1.0,
}  # fmt: skip
"""What a server tells three devices, of which two can unmask: more than half."""


def identify() -> None:
    """Says to Flower who sends in this process."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, SERVER_ID


class Member:
    """A device with an update; whatever it is asked, Flower's mod answers.

    Parameters
    ----------
    node_id : int
    update : ndarray
        [n] of float32.

    Attributes
    ----------
    up, down : int
        Bytes of the answers and of the messages.
    """

    def __init__(self, node_id: int, update: Array) -> None:
        self.node_id, self.update, self.up, self.down = node_id, update, 0, 0
        self._context = Context(RUN_ID, node_id, {}, RecordDict(), {})

    def answer(self, message: Any) -> Any:
        """The answer to a message of the server's; raises what the mod raises."""
        self.down += _size(message)
        answer = secaggplus_mod(message, self._context, self._train)
        self.up += _size(answer)
        return answer

    def ask(self, stage: str, configs: dict[str, Any]) -> Any:
        """What it answers in a stage to a server that is written by hand."""
        content = RecordDict({RECORD_KEY_CONFIGS: ConfigRecord({Key.STAGE: stage, **configs})})
        if stage == Stage.COLLECT_MASKED_VECTORS:
            content.update(compat.fitins_to_recorddict(FitIns(ndarrays_to_parameters([]), {}), True))
        message = Message(content, self.node_id, "train")
        return self.answer(message).content.config_records[RECORD_KEY_CONFIGS]

    @property
    def pair_keys(self) -> list[bytes]:
        """The keys that this device shares with each other one, after a round."""
        state = self._context.state.config_records[RECORD_KEY_STATE]
        public = dict(zip(state["public_keys_dict:K"], state["public_keys_dict:V"][::2], strict=True))
        private = bytes_to_private_key(state["sk1"])
        return [generate_shared_key(private, bytes_to_public_key(public[i])) for i in public if i != self.node_id]

    def _train(self, message: Any, context: Any) -> Any:
        # All devices count the same.
        found = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self.update]), 1, {})
        return Message(compat.fitres_to_recorddict(found, False), reply_to=message)


def _size(message: Any) -> int:
    return sum(len(part.deflate()) for part in get_all_nested_objects(message).values())


class Room:
    """Members in this process as a round of Flower's sees them.

    Parameters
    ----------
    members : iterable of Member
    gone : iterable of int
        Numbers of those that go when the keys have been shared.

    Attributes
    ----------
    got : dict
        What the server gets, by stage and node.
    """

    def __init__(self, members: Iterable[Member], gone: Iterable[int] = ()) -> None:
        self._members, self._gone = {member.node_id: member for member in members}, set(gone)
        self.got: dict[str, dict[int, Any]] = {}

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> list[Any]:
        """The answers of the members, at once; the part of Flower's Grid that SecAgg+ uses."""
        answers = []
        for message in messages:
            node_id = message.metadata.dst_node_id
            # Messages share what they hold, and the mod takes the stage out of it: each gets its own, as over a wire.
            parts = {name: part.deflate() for name, part in get_all_nested_objects(message.content).items()}
            content = inflate_object_from_contents(message.content.object_id, parts)
            stage = content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
            if stage in (Stage.COLLECT_MASKED_VECTORS, Stage.UNMASK) and node_id in self._gone:
                continue
            answers.append(self._members[node_id].answer(Message(content, node_id, "train")))
            answers[-1].metadata.__dict__["_src_node_id"] = node_id
            self.got.setdefault(stage, {})[node_id] = answers[-1].content.config_records[RECORD_KEY_CONFIGS]
        return answers

    def run_round(self) -> Array:
        """One round by Flower's own workflow; the mean that the server gets."""
        manager = SimpleClientManager()
        for node_id in self._members:
            manager.register(GridClientProxy(node_id, self, RUN_ID))
        n = len(self._members)
        strategy = FedAvg(min_fit_clients=n, min_available_clients=n)
        context = LegacyContext(Context(RUN_ID, SERVER_ID, {}, RecordDict(), {}), None, strategy, manager)
        context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
        start = compat.parameters_to_arrayrecord(ndarrays_to_parameters([np.zeros(1, np.float32)]), True)
        context.state.array_records[MAIN_PARAMS_RECORD] = start
        sizes = {"clipping_range": CLIP, "quantization_range": TARGET_RANGE, "modulus_range": MOD_RANGE}
        SecAggPlusWorkflow(1.0, (n // 2 + 1) / n, max_weight=1.0, **sizes)(self, context)
        (mean,) = context.state.array_records[MAIN_PARAMS_RECORD].to_numpy_ndarrays()
        return np.asarray(mean)
