# ruff: noqa: E402
"""The one door to Flower: importing this keeps it silent, then brings the parts of it that are used.

Of Flower's many parts these are taken: its messages, the state of its SuperLink (nodes, messages, objects), the Fleet
API by which devices reach that over HTTP and its client, the Grid and the ClientApp. What fetches and runs programs
(FABs), uploads logs or asks for updates is not used.
"""

from __future__ import annotations

import importlib
import logging

from edgelm.config import data_dir, quiet_flower
from edgelm.errors import DeviceError

# It reads the environment when it is imported.
quiet_flower(data_dir() / "swarm" / "flower")
for _name in ("flwr.app", "fastapi", "uvicorn", "httpx"):
    try:
        importlib.import_module(_name)
    except ModuleNotFoundError as exc:
        package = (exc.name or _name).partition(".")[0]
        raise DeviceError(f"the swarm needs {package}: pip install 'edgelm[swarm]'") from None

import httpx
import uvicorn
from fastapi import FastAPI
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.common.constant import NOOP_FLWR_AID, SUPERLINK_NODE_ID, SubStatus
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2, node_pb2
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.serverapp import Grid
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, NodeStatus, TaskType
from flwr.supercore.error import http_error_translator
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import NoObjectInStoreError, ObjectStoreFactory
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.routers.fleet.router import router as fleet_router
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse

# It sets what it logs when it is imported.
for _name in ("flwr", "flwr-telemetry", "uvicorn", "uvicorn.error", "httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

__all__ = [
    "FLWR_IN_MEMORY_DB_NAME",
    "NOOP_FEDERATION_ID",
    "NOOP_FLWR_AID",
    "SUPERLINK_NODE_ID",
    "BaseHTTPMiddleware",
    "ClientApp",
    "ConfigRecord",
    "Context",
    "Error",
    "FastAPI",
    "FleetHttpClient",
    "Grid",
    "JSONResponse",
    "LinkStateFactory",
    "Message",
    "Middleware",
    "NoObjectInStoreError",
    "NoOpFederationManager",
    "NodeAuthHttpInterceptor",
    "NodeAuthMiddleware",
    "NodeStatus",
    "ObjectStoreFactory",
    "ProtobufTranslationMiddleware",
    "RecordDict",
    "Run",
    "SubStatus",
    "TaskIdentity",
    "TaskType",
    "fleet_pb2",
    "fleet_router",
    "generate_key_pairs",
    "get_all_nested_objects",
    "get_object_id",
    "get_object_tree",
    "heartbeat_pb2",
    "http_error_translator",
    "httpx",
    "inflate_object_from_contents",
    "iterate_object_tree",
    "message_from_proto",
    "message_pb2",
    "message_to_proto",
    "node_pb2",
    "public_key_to_bytes",
    "remove_content_from_message",
    "uvicorn",
]
