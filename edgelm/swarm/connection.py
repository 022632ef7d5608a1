"""A device's end: it asks a server for messages and answers them, through Flower's client of the Fleet API.

Only messages travel. Flower's own SuperNode would fetch a program (a FAB) from the server and run it; here the program
is the installed edgelm, and what could bring another is never called. Nothing but the given address is connected to:
redirections are not followed, and proxies of the environment are not asked.
"""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from edgelm.errors import DeviceError, InputError
from edgelm.swarm.flower import (
    FleetHttpClient,
    NodeAuthHttpInterceptor,
    fleet_pb2,
    generate_key_pairs,
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    heartbeat_pb2,
    httpx,
    inflate_object_from_contents,
    iterate_object_tree,
    message_from_proto,
    message_pb2,
    message_to_proto,
    node_pb2,
    public_key_to_bytes,
    remove_content_from_message,
)
from edgelm.swarm.wire import MOST_FRAME, MOST_OBJECTS

LEAST_SECONDS, MOST_SECONDS = 10.0, 1800.0
"""Between two signs of life, as Flower has it; a device that gave none for twice as long is taken for gone."""
_ANSWER_SECONDS = 30.0


class _BoundedStream(httpx.SyncByteStream):
    def __init__(self, stream: Any, most: int) -> None:
        self._stream, self._left = stream, most

    def __iter__(self) -> Iterator[bytes]:
        for part in self._stream:
            self._left -= len(part)
            if self._left < 0:
                raise httpx.RemoteProtocolError("the answer is longer than any may be")
            yield part

    def close(self) -> None:
        self._stream.close()


class _BoundedTransport(httpx.HTTPTransport):
    """Answers may have ``most`` bytes, and are taken as they come: what is compressed could become any size."""

    def __init__(self, most: int, verify: Any) -> None:
        super().__init__(verify=verify)
        self._most = most

    def handle_request(self, request: Any) -> Any:
        request.headers["accept-encoding"] = "identity"
        response = super().handle_request(request)
        if "content-encoding" in response.headers:
            response.close()
            raise httpx.RemoteProtocolError("the answer is compressed")
        response.stream = _BoundedStream(response.stream, self._most)
        return response


def checked_address(address: str) -> str:
    """``HOST:PORT`` if it is one; an IPv6 host stands in brackets.

    Raises
    ------
    InputError
        It is not.
    """
    found = re.fullmatch(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})", address)
    try:
        fits = found is not None and 0 < int(found["port"]) < 1 << 16
        if found and found["v6"]:
            ipaddress.IPv6Address(found["v6"])
    except ValueError:
        fits = False
    if not fits:
        raise InputError(f"{address!r} is no address: expected HOST:PORT, as 192.168.1.5:8430")
    return address


def bounded_client(most: int, root: Path | None, seconds: float = _ANSWER_SECONDS) -> Any:
    """An HTTP client that connects to nothing but what it is told to, and reads ``most`` bytes at most.

    Raises
    ------
    InputError
        ``root``, the certificate that the server's is signed with (PEM), cannot be used.
    """
    verify: Any = False
    if root is not None:
        import ssl

        try:
            verify = ssl.create_default_context(cafile=str(root))
        except (OSError, ssl.SSLError) as exc:
            raise InputError(f"{root}: no certificate that can be used ({exc})") from None
    transport = _BoundedTransport(most, verify)
    return httpx.Client(transport=transport, timeout=seconds, follow_redirects=False, trust_env=False)


def reported(exc: Exception, address: str) -> DeviceError:
    """What went wrong at the other end, as one line."""
    if isinstance(exc, httpx.HTTPStatusError):
        return DeviceError(f"{address}: the server refuses ({exc.response.status_code}); is it one of `swarm serve`?")
    return DeviceError(f"{address}: no answer from the server ({type(exc).__name__})")


class Connection:
    """A node of Flower's while it lasts: registered under a key that is made for it and never kept.

    Parameters
    ----------
    address : str
        Of ``checked_address``.
    most : int
        Bytes of the largest part of a message.
    root : Path or None
        Certificate that the server's is signed with; None: plain HTTP.
    seconds : float
        How often the device asks; from it follows when it is taken for gone.

    Raises
    ------
    DeviceError
        The server cannot be reached, or is none of a swarm. All methods raise it.
    """

    def __init__(self, address: str, most: int, root: Path | None, seconds: float) -> None:
        self._address, self._most = address, most
        self._interval = min(max(seconds, LEAST_SECONDS), MOST_SECONDS)
        private, public = generate_key_pairs()
        scheme = "http" if root is None else "https"
        self._client = FleetHttpClient(f"{scheme}://{address}", interceptors=[NodeAuthHttpInterceptor(private, public)])
        self._client.close()
        self._client._client = bounded_client(most + MOST_FRAME, root)
        key = public_key_to_bytes(public)
        self._ended = threading.Event()
        self.is_lost = False
        """Whether the server does not know the device any more: connect anew."""
        try:
            self._call(self._client.RegisterNode, fleet_pb2.RegisterNodeFleetRequest(public_key=key))
            request = fleet_pb2.ActivateNodeRequest(public_key=key, heartbeat_interval=self._interval)
            node_id = self._call(self._client.ActivateNode, request).node_id
            if not node_id:
                raise reported(ValueError(), address)
            self._node = node_pb2.Node(node_id=node_id)
        except BaseException:
            self._client.close()
            raise
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def _call(self, function: Callable[[Any], Any], request: Any) -> Any:
        try:
            return function(request)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as exc:
            raise reported(exc, self._address) from None

    def _beat(self) -> None:
        """Says that the device is there, also while it learns."""
        request = heartbeat_pb2.SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=self._interval)
        while not self._ended.wait(self._interval * 0.7):
            try:
                self.is_lost = not self._call(self._client.SendNodeHeartbeat, request).success
            except DeviceError:
                self.is_lost = True

    def receive(self) -> Any:
        """The next whole message for this device, or None.

        Raises
        ------
        InputError
            It is none that a server of edgelm sends.
        """
        found = self._call(self._client.PullMessages, fleet_pb2.PullMessagesRequest(node=self._node))
        if not found.messages_list:
            return None
        try:
            bare, tree = message_from_proto(found.messages_list[0]), found.message_object_trees[0]
            ids = [part.object_id for part in iterate_object_tree(tree)]
            if len(ids) > MOST_OBJECTS:
                raise ValueError("too many parts")
            contents = {i: self._object(bare.metadata.run_id, i) for i in ids}
            message = inflate_object_from_contents(tree.object_id, contents)
        except DeviceError:
            raise
        except Exception as exc:  # whatever Flower's parsers raise of bytes from outside
            raise InputError(f"the server sent a message that cannot be read ({type(exc).__name__})") from None
        message.metadata.__dict__["_message_id"] = bare.metadata.message_id
        message.metadata.__dict__["_dst_node_id"] = self._node.node_id
        self._call(
            self._client.ConfirmMessageReceived,
            message_pb2.ConfirmMessageReceivedRequest(
                node=self._node, run_id=bare.metadata.run_id, message_object_id=tree.object_id
            ),
        )
        return message

    def _object(self, run_id: int, object_id: str) -> bytes:
        request = message_pb2.PullObjectRequest(node=self._node, run_id=run_id, object_id=object_id)
        found = self._call(self._client.PullObject, request)
        content: bytes = found.object_content
        if not found.object_available or get_object_id(content) != object_id:
            raise ValueError("a part is missing")
        return content

    def send(self, answer: Any) -> None:
        """Sends the answer to a message."""
        answer.metadata.__dict__["_message_id"] = answer.object_id
        run_id, objects = answer.metadata.run_id, get_all_nested_objects(answer)
        request = fleet_pb2.PushMessagesRequest(
            node=self._node, messages_list=[message_to_proto(remove_content_from_message(answer))],
            message_object_trees=[get_object_tree(answer)],
        )  # fmt: skip
        wanted = self._call(self._client.PushMessages, request)
        for object_id in wanted.objects_to_push:
            # A server may ask for nothing but parts of the answer.
            if object_id not in objects:
                continue
            part = message_pb2.PushObjectRequest(
                node=self._node, run_id=run_id, session_id=wanted.session_id, object_id=object_id,
                object_content=objects[object_id].deflate(),
            )  # fmt: skip
            self._call(self._client.PushObject, part)

    def close(self) -> None:
        """Says that the device goes, if somebody listens."""
        self._ended.set()
        for function, kind in (
            (self._client.DeactivateNode, fleet_pb2.DeactivateNodeRequest),
            (self._client.UnregisterNode, fleet_pb2.UnregisterNodeFleetRequest),
        ):
            try:
                self._call(function, kind(node_id=self._node.node_id))
            except DeviceError:
                break
        self._client.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
