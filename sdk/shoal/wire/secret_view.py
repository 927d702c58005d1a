"""A secret as clients see it, between `shoal.secret` and the contract."""

from shoal.secret import SecretView
from shoal.v1 import secrets_service_pb2 as v1
from shoal.wire.codec import codec, identifier

SECRET = codec(
    SecretView,
    v1.Secret,
    "secret",
    namespace=identifier("namespace"),
    name=identifier("secret"),
)
