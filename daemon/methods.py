"""The control API's method table: what each name does. It feeds RPC, discovery and docs alike.

Rules kept here:
- a method is an async function with typed parameters; its docstring's first line is its summary;
- it says whether it only reads, for tokens that may only read;
- refusals are RpcError with one of the kinds of `refusals`, and their codes never change meaning;
- nothing secret is returned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from daemon import openrpc
from daemon.jsonrpc import Handler, Method
from daemon.model_api import ModelApi
from daemon.network_api import NetworkApi
from daemon.node_api import EventsApi, NodeApi
from daemon.overlay_api import OverlayApi
from daemon.running import Node
from daemon.training_api import JobApi, MetricsApi, TrainApi, TrustApi
from daemon.version import VERSION


def build(node: Node) -> dict[str, Method]:
    """The method table of a node."""
    methods: dict[str, Method] = {}
    for name, (handler, read_only) in _handlers(node, lambda: methods).items():
        summary = (handler.__doc__ or "").strip().splitlines()[0]
        methods[name] = Method(name, summary, handler, read_only)
    return methods


def _handlers(
    node: Node, table: Callable[[], dict[str, Method]]
) -> dict[str, tuple[Handler, bool]]:
    async def discover() -> dict[str, Any]:
        """The OpenRPC document of this API."""
        return openrpc.document(table(), version=VERSION)

    node_, overlay_, train, job = NodeApi(node), OverlayApi(node), TrainApi(node), JobApi(node)
    model, metrics, events = ModelApi(node), MetricsApi(node), EventsApi(node)
    trust, network = TrustApi(node), NetworkApi(node)
    return {
        "rpc.discover": (discover, True),
        "node.info": (node_.info, True),
        "node.status": (node_.status, True),
        "node.stop": (node_.stop, False),
        "overlay.members": (overlay_.members, True),
        "overlay.topology": (overlay_.topology, True),
        "overlay.join": (overlay_.join, False),
        "overlay.leave": (overlay_.leave, False),
        "network.invite": (network.invite, False),
        "network.revoke": (network.revoke, False),
        "network.rotate": (network.rotate, False),
        "train.status": (train.status, True),
        "train.start": (train.start, False),
        "train.stop": (train.stop, False),
        "train.pause": (train.pause, False),
        "train.resume": (train.resume, False),
        "train.block": (trust.block, False),
        "train.unblock": (trust.unblock, False),
        "job.show": (job.show, True),
        "job.submit": (job.submit, False),
        "model.evaluate": (model.evaluate, True),
        "model.export": (model.export, False),
        "model.import": (model.import_file, False),
        "metrics.get": (metrics.get, True),
        "events.list": (events.list, True),
        "events.subscribe": (events.subscribe, True),
    }
