"""A stored pipeline as clients see it, between `shoal.stored_pipeline` and the contract."""

from shoal.stored_pipeline import StoredPipelineView
from shoal.v1 import stored_pipelines_service_pb2 as v1
from shoal.wire import fields
from shoal.wire.codec import NounCodec, checked, codec, identifier, maybe
from shoal.wire.pipeline_source import decode_source, encode_source
from shoal.wire.spec_report import decode_declared, encode_declared

STORED_PIPELINE = codec(
    StoredPipelineView,
    v1.StoredPipeline,
    "stored",
    namespace=identifier("namespace"),
    name=identifier("stored pipeline"),
    source=maybe(NounCodec(encode_source, decode_source)),
    parameters=checked(decode_declared, encode_declared),
    bundle_digest=checked(fields.sha256),
)
