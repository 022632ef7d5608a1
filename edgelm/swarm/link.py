"""The server's end: Flower's Fleet API over HTTP, and a Grid with which a round sends messages and gets the answers.

Of Flower's SuperLink only the Fleet API is served: what devices need to register, to fetch a message and to answer it.
What starts runs, hands out apps (FABs) or takes logs is not, so nobody can give this server a program. Its state is in
memory; what must last is kept by ``edgelm.swarm.server``.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgelm.errors import DeviceError, InputError
from edgelm.swarm.flower import (
    FLWR_IN_MEMORY_DB_NAME,
    NOOP_FEDERATION_ID,
    NOOP_FLWR_AID,
    SUPERLINK_NODE_ID,
    BaseHTTPMiddleware,
    FastAPI,
    Grid,
    JSONResponse,
    LinkStateFactory,
    Message,
    Middleware,
    NodeAuthMiddleware,
    NodeStatus,
    NoObjectInStoreError,
    NoOpFederationManager,
    ObjectStoreFactory,
    ProtobufTranslationMiddleware,
    SubStatus,
    TaskIdentity,
    TaskType,
    fleet_router,
    get_all_nested_objects,
    get_object_tree,
    http_error_translator,
    inflate_object_from_contents,
    iterate_object_tree,
    message_from_proto,
    message_to_proto,
    remove_content_from_message,
    uvicorn,
)
from edgelm.swarm.wire import MOST_FRAME, MOST_OBJECTS, MOST_UPDATE

STATUS = "/swarm/status"
"""Where the server says what it does, as JSON, to whoever asks."""
_CALLS = {
    "/v1/fleet/register-node", "/v1/fleet/activate-node", "/v1/fleet/deactivate-node", "/v1/fleet/unregister-node",
    "/v1/fleet/send-node-heartbeat", "/v1/fleet/pull-messages", "/v1/fleet/push-messages", "/v1/fleet/pull-object",
    "/v1/fleet/confirm-message-received",
}  # fmt: skip
_PUSH_OBJECT = "/v1/fleet/push-object"
_PULL_SECONDS, _START_SECONDS = 0.2, 30.0


@dataclass(frozen=True)
class Listening:
    """Where a server listens.

    Attributes
    ----------
    host : str
    port : int
        0: a free one.
    certificate, key : Path or None
        Of TLS, PEM; without them what devices send can be read on the way.
    """

    host: str = "127.0.0.1"
    port: int = 0
    certificate: Path | None = None
    key: Path | None = None


class _Bounded:
    """Lets through only calls that devices make, of no more bytes than those have (an ASGI application)."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        most = MOST_UPDATE + MOST_FRAME if path == _PUSH_OBJECT else MOST_FRAME
        if not ((method == "POST" and path in {*_CALLS, _PUSH_OBJECT}) or (method == "GET" and path == STATUS)):
            await JSONResponse({"detail": "no such call"}, 404)(scope, receive, send)
            return
        body, more = bytearray(), True
        while more:
            event = await receive()
            if event["type"] != "http.request":
                return
            body += event.get("body", b"")
            more = event.get("more_body", False)
            if len(body) > most:
                await JSONResponse({"detail": f"more than {most} bytes"}, 413)(scope, receive, send)
                return
        events = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Any:
            return events.pop() if events else await receive()

        await self._app(scope, replay, send)


class Link:
    """The Fleet API on one address, in a thread of its own, and the state behind it.

    Parameters
    ----------
    listening : Listening
    status : callable
        What the server says of itself, ready for JSON.

    Attributes
    ----------
    url : str

    Raises
    ------
    DeviceError
        It cannot listen there.
    """

    def __init__(self, listening: Listening, status: Callable[[], dict[str, Any]]) -> None:
        objects = ObjectStoreFactory(FLWR_IN_MEMORY_DB_NAME)
        states = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), objects)
        self.state = states.state()
        app = FastAPI(
            docs_url=None, redoc_url=None, openapi_url=None,
            middleware=[
                Middleware(_Bounded),
                Middleware(BaseHTTPMiddleware, dispatch=http_error_translator),
                Middleware(ProtobufTranslationMiddleware),
                Middleware(NodeAuthMiddleware),
            ],
        )  # fmt: skip
        app.state.linkstate_factory, app.state.enable_supernode_auth = states, False
        app.include_router(fleet_router)
        app.add_route(STATUS, lambda _: JSONResponse(status()), methods=["GET"])
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, lifespan="off", ws="none",
            ssl_certfile=listening.certificate, ssl_keyfile=listening.key,
        )  # fmt: skip
        try:
            config.load()
            family = socket.AF_INET6 if ":" in listening.host else socket.AF_INET
            self._socket = socket.create_server((listening.host, listening.port), family=family)
        except OSError as exc:
            where = f"{listening.host}:{listening.port}"
            raise DeviceError(f"{where}: cannot listen there ({exc.strerror or exc})") from None
        self._server = uvicorn.Server(config)
        host = f"[{listening.host}]" if ":" in listening.host else listening.host
        scheme = "https" if listening.certificate else "http"
        self.url = f"{scheme}://{host}:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="fleet", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        if not self._server.started:
            raise DeviceError(f"{self.url}: Flower's Fleet API does not start")

    @property
    def node_ids(self) -> set[int]:
        """The devices that are there now."""
        return {node.node_id for node in self.state.get_node_info(statuses=[NodeStatus.ONLINE])}

    def close(self) -> None:
        """Ends the thread; calls under way are broken off."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)
        self._socket.close()


class LinkGrid(Grid):
    """Flower's Grid over the state of a ``Link``, for one round: a run of Flower's that ends with the round.

    Answers to an earlier round are refused by Flower, since that run is over.
    """

    def __init__(self, link: Link) -> None:
        self._state = link.state
        self._run_id = self._state.create_run(
            None, None, None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        self._task_id = self.run.primary_task_id
        self._state.claim_task(self._task_id)
        self._state.activate_task(self._task_id)
        self._arriving: dict[str, Any] = {}
        TaskIdentity.task_id, TaskIdentity.run_id = self._task_id, self._run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    def set_run(self, run: Any) -> None:
        """Does nothing: a grid is made for its run."""

    @property
    def run(self) -> Any:
        """What Flower knows of the run."""
        return self._state.get_run_info(run_ids=[self._run_id])[0]

    def create_message(
        self, content: Any, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Any:
        """A message to a device; ``Message`` does the same."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The devices that are there now."""
        return sorted(self._state.get_nodes(self._run_id))

    def get_nodes(self) -> Iterable[Any]:
        """What Flower knows of these devices."""
        return list(self._state.get_node_info(node_ids=list(self.get_node_ids())))

    def push_messages(self, messages: Iterable[Any]) -> Iterable[str]:
        """Leaves messages for devices to fetch; returns the ids of those that can be fetched."""
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = message.object_id
            # As it comes over HTTP: the state writes into the metadata that it keeps.
            bare = message_from_proto(message_to_proto(remove_content_from_message(message)))
            session = self._state.start_session(self._run_id)
            stored, missing = self._state.store_message_and_object_tree(bare, get_object_tree(message), session)
            if not stored:
                continue
            objects = get_all_nested_objects(message)
            for object_id in missing:
                self._state.store_object(self._run_id, session, object_id, objects[object_id].deflate())
            ids.append(bare.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Any]:
        """The answers that are complete by now, each once; of a device that has gone, an error or nothing."""
        self._state.acknowledge_task_heartbeat(self._task_id)
        waiting = set(message_ids) - set(self._arriving)
        with self._state.lock:
            # Also of a device that has gone since: Flower would say of it that it has gone.
            for asked, found in self._state.message_ins_id_to_message_res_id.items():
                if asked in waiting:
                    self._arriving[asked] = self._state.message_res_store[found]
        for answer in self._state.get_message_res(message_ids=waiting - set(self._arriving), run_id=self._run_id):
            self._arriving[answer.metadata.reply_to_message_id] = answer
        complete, there = [], set(self.get_node_ids())
        for asked, answer in list(self._arriving.items()):
            try:
                whole = answer if answer.has_error() else self._inflated(answer.metadata.message_id)
            except (InputError, NoObjectInStoreError):
                whole = None
            except _NotYetError:
                if answer.metadata.src_node_id in there:
                    continue
                whole = None
            del self._arriving[asked]
            # What is not whole or cannot be read has neither content nor error.
            complete.append(whole or answer)
            complete[-1].metadata.__dict__["_reply_to_message_id"] = asked
        return complete

    def _inflated(self, message_id: str) -> Any:
        """A whole message out of its objects."""
        store = self._state.object_store
        ids = [tree.object_id for tree in iterate_object_tree(store.get_object_tree(message_id))]
        if len(ids) > MOST_OBJECTS:
            raise InputError(f"a message of {len(ids)} objects")
        contents = {i: store.get(i) for i in ids}
        if any(content is None for content in contents.values()):
            raise InputError("a message whose objects are gone")
        if not all(contents.values()):
            raise _NotYetError
        try:
            return inflate_object_from_contents(message_id, contents)
        except Exception as exc:  # whatever Flower's parsers raise of bytes from outside
            raise InputError(f"a message that cannot be read ({type(exc).__name__})") from None

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> Iterable[Any]:
        """Sends messages and waits for their answers, ``timeout`` seconds at most."""
        waiting, answers = set(self.push_messages(messages)), []
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while waiting and time.monotonic() < deadline:
            for answer in self.pull_messages(waiting):
                waiting.discard(answer.metadata.reply_to_message_id)
                answers.append(answer)
            time.sleep(_PULL_SECONDS)
        return answers

    def close(self) -> None:
        """Ends the run; what was sent and not fetched goes."""
        self._state.finish_task(self._task_id, SubStatus.COMPLETED, "")
        self._state.object_store.delete_objects_in_run(self._run_id)


class _NotYetError(Exception):
    """Parts of an answer are still on their way."""
