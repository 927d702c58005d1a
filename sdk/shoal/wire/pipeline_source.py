"""A specification, read or as text, between `shoal.spec_text` and the contract."""

from collections.abc import Mapping
from typing import Final

from shoal import limits
from shoal.spec import Pipeline
from shoal.spec_text import TEXT_CHARACTERS_MAX, PipelineSource, SpecText
from shoal.v1 import specs_service_pb2 as v1
from shoal.wire import fields
from shoal.wire.codec import checked, codec
from shoal.wire.fields import WireError
from shoal.wire.known_specs import decode_known_spec, encode_known_spec


def _text(text: str, path: str) -> str:
    if len(text) > TEXT_CHARACTERS_MAX:
        raise WireError(
            path,
            f"the text has {len(text)} characters, {TEXT_CHARACTERS_MAX} at most; put data into the bundle, or let "
            "`shoal submit` read the file",
        )
    return text


def _values(values: Mapping[str, str], path: str) -> Mapping[str, str]:
    if len(values) > limits.PARAMETERS_MAX:
        raise WireError(
            path, f"there are {len(values)} values, {limits.PARAMETERS_MAX} at most; leave some out"
        )
    return fields.strings(values)


SPEC_TEXT: Final = codec(
    SpecText,
    v1.SpecText,
    text=checked(_text),
    values=checked(_values),
    bundle_digest=checked(fields.sha256),
)


def encode_source(source: PipelineSource) -> v1.PipelineSource:
    """Write a specification, read or as text."""
    if isinstance(source, Pipeline):
        return v1.PipelineSource(spec=encode_known_spec(source))
    return v1.PipelineSource(text=SPEC_TEXT.encode(source))


def decode_source(message: v1.PipelineSource, path: str = "source") -> PipelineSource:
    """Read a specification that is read already, or the text of one.

    Raises:
        WireError: it is neither, or breaks the contract.
    """
    match message.WhichOneof("content"):
        case "spec":
            return decode_known_spec(message.spec, fields.at(path, "spec"))
        case "text":
            return SPEC_TEXT.decode(message.text, fields.at(path, "text"))
        case _:
            raise WireError(path, "there is no specification; give `spec` or `text`")
