"""A node as it is shown among others."""

from dataclasses import replace

from control.front.control_plane import ControlPlane
from shoal.v1 import nodes_service_pb2 as v1
from shoal.view import NodeView
from shoal.wire.view import encode_node


def node_picture(plane: ControlPlane, bound: str, node: NodeView) -> v1.Node:
    """Write a node as one of many: what it keeps may be long, and is said of a single node alone.

    Args:
        plane: knows what is on the node.
        bound: the only namespace of the reader; empty for one that may look into all.
        node: as it is.
    """
    return encode_node(replace(plane.within(bound, node), kept=()))
