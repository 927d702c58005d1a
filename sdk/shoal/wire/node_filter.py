"""Which nodes are meant, between our noun and the contract."""

from shoal.node_filter import NodeFilter
from shoal.v1 import nodes_service_pb2 as v1
from shoal.wire.codec import checked, codec
from shoal.wire.pipeline_filter import checked_labels, checked_pattern

encode_node_filter, decode_node_filter = codec(
    NodeFilter,
    v1.NodeFilter,
    "filter",
    name=checked(checked_pattern),
    labels=checked(checked_labels, dict),
)
