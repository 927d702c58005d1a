"""Codecs: how a value becomes the bytes of a record and back.

`AUTO`, the default, puts a tag of one byte before the record, so that what is sent arrives as the
same type. The others put nothing around the bytes, so that programs without this library read and
write them too; both ends have to name them.
"""

import abc
import importlib
import json
import pickle  # between the jobs of one pipeline, and only where both ends ask for it
import struct
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union, cast

from shoal.job import ndarray
from shoal.job.block import Buffer
from shoal.job.error import CodecError

_raw_decode = json.JSONDecoder().raw_decode
_type_of: Callable[[object], Any] = type
_SCALARS = frozenset((type(None), bool, int, float, str))
_DAMAGED = (ValueError, KeyError, IndexError, TypeError, struct.error, RecursionError)
_BYTES, _BYTEARRAY, _STR, _JSON, _ARRAY, _SCALAR, _COMPOSITE = b"bysjngc"
_SMALL_BYTES = 64 * 1024  # what is larger is not copied to put a tag before it
_PARTS = struct.Struct("<II")  # bytes of the skeleton, number of parts

_dumps = json.JSONEncoder(separators=(",", ":")).encode
_dumps_strictly = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode


class Codec(abc.ABC):
    """Makes records of values and values of records; derive from it for a format of your own."""

    name = ""
    reads_bytes = False
    """Whether `decode` takes bytes, too; otherwise it is only given memoryviews."""

    @abc.abstractmethod
    def encode(self, value: Any) -> List[Buffer]:
        """The record's bytes in pieces, which are not copied when they are large.

        Raises:
            CodecError: This codec cannot send the value; says what can.
        """

    def pack(self, value: Any) -> Optional[bytes]:  # noqa: ARG002 - for those that can
        """The record in one piece where that is cheap; None: `encode` makes it.

        Raises:
            CodecError: This codec cannot send the value; says what can.
        """
        return None

    @abc.abstractmethod
    def decode(self, record: Any) -> Any:
        """The value that the record, a memoryview, was made of.

        Raises:
            CodecError: The record was not made by this codec.
        """


class _PackedCodec(Codec):
    """One that makes each record in one piece, and reads bytes."""

    reads_bytes = True

    def encode(self, value: Any) -> List[Buffer]:
        """See `Codec.encode`."""
        return [cast(bytes, self.pack(value))]


class Auto(Codec):
    """Chooses by type: what is sent arrives as the same type.

    Tags: `b` bytes, `y` bytearray, `s` str, `j` JSON (None, bool, int, float, lists, dicts with
    str keys), `n` numpy array, `g` numpy scalar, `c` composite (tuples, dicts with other keys, and
    bytes or arrays inside).
    """

    name = "auto"
    reads_bytes = True

    def pack(self, value: Any) -> Optional[bytes]:
        """See `Codec.pack`."""
        kind = _type_of(value)
        if kind is bytes:
            data: bytes = value
            return b"b" + data if len(data) < _SMALL_BYTES else None
        if kind is str:
            text: str = value
            return b"s" + text.encode("utf-8", "surrogatepass")
        if kind is int:  # what json writes, in a tenth of its time
            return b"j%d" % value
        if kind is float and value - value == 0:  # neither infinite nor no number
            return b"j" + repr(value).encode("ascii")
        if kind in _SCALARS:
            return b"j" + _dumps(value).encode("ascii")
        return None

    def encode(self, value: Any) -> List[Buffer]:
        """See `Codec.encode`; a memoryview arrives as bytes."""
        record = self.pack(value)
        if record is not None:
            return [record]
        kind = _type_of(value)
        if kind is bytes:
            return [b"b", value]
        if kind is bytearray:
            return [b"y", value]
        if kind is memoryview:
            return [b"b", _bytes_of(value)]
        if kind in (list, dict, tuple):
            try:
                if _is_json(value):
                    return [b"j" + _dumps(value).encode("ascii")]
                return self._composite(value)
            except RecursionError:
                raise CodecError("the value contains itself, so it cannot be sent") from None
        if ndarray.is_array(value):
            return [b"n", *ndarray.encode(value)]
        if ndarray.is_scalar(value):
            return [b"g", *ndarray.encode(value)]
        raise CodecError(_unsendable(value))

    def decode(self, record: Buffer) -> Any:
        """See `Codec.decode`."""
        tag = record[0] if record else -1
        body = record[1:]
        try:
            if tag == _BYTES:
                return bytes(body)
            if tag == _JSON:
                text = str(body, "ascii")
                value, end = _raw_decode(text)
                if end != len(text):
                    raise ValueError("more follows at character {}".format(end))
                return value
            if tag == _STR:
                return str(body, "utf-8", "surrogatepass")
            if tag == _ARRAY:
                return ndarray.decode(body)
            if tag == _COMPOSITE:
                return self._decode_composite(body)
            if tag == _SCALAR:
                return ndarray.decode(body)[()]
            if tag == _BYTEARRAY:
                return bytearray(body)
        except _DAMAGED as error:
            raise CodecError(
                "a record with tag {!r} is damaged: {}".format(chr(tag), error)
            ) from error
        raise CodecError(
            "a record begins with {!r}, which codec 'auto' does not know: if the sender is a "
            "program without shoal.job, or names a codec, name the same one here (for raw bytes: "
            "codecs={{'PORT': 'raw'}})".format(bytes(record[:1]))
        )

    def _composite(self, value: Any) -> List[Buffer]:
        parts: List[List[Buffer]] = []
        skeleton = _dumps(self._skeleton(value, parts)).encode("ascii")
        lengths = [sum(len(piece) for piece in part) for part in parts]
        head = b"c" + _PARTS.pack(len(skeleton), len(parts))
        head += struct.pack("<%dI" % len(parts), *lengths) + skeleton
        pieces: List[Buffer] = [head]
        for part in parts:
            pieces.extend(part)
        return pieces

    def _skeleton(self, value: Any, parts: List[List[Buffer]]) -> Any:
        kind = _type_of(value)
        if kind in _SCALARS:
            return value
        if kind is list:
            return {"l": [self._skeleton(item, parts) for item in value]}
        if kind is tuple:
            return {"t": [self._skeleton(item, parts) for item in value]}
        if kind is dict:
            pairs = [
                [self._skeleton(key, parts), self._skeleton(item, parts)]
                for key, item in value.items()
            ]
            return {"d": pairs}
        parts.append(self.encode(value))
        return {"p": len(parts) - 1}

    def _decode_composite(self, body: Buffer) -> Any:
        skeleton, parts = composite_of(body)
        return flesh(skeleton, [self.decode(body[part]) for part in parts])


class Raw(Codec):
    """Bytes as they are, for streams from or to programs without this library."""

    name = "raw"
    reads_bytes = True

    def pack(self, value: Any) -> Optional[bytes]:
        """See `Codec.pack`."""
        return value if type(value) is bytes else None

    def encode(self, value: Any) -> List[Buffer]:
        """See `Codec.encode`."""
        if isinstance(value, (bytes, bytearray)):
            return [value]
        if isinstance(value, memoryview):
            return [_bytes_of(cast(memoryview, value))]
        raise CodecError(
            "codec 'raw' sends bytes, and the value is of type {}: encode it "
            "(str: value.encode())".format(_type_name(value))
        )

    def decode(self, record: Buffer) -> Any:
        """See `Codec.decode`."""
        return bytes(record)


class Json(_PackedCodec):
    """JSON in UTF-8, for streams from or to programs with ports in `jsonl`, too."""

    name = "json"

    def pack(self, value: Any) -> bytes:
        """See `Codec.encode`; tuples arrive as lists, and keys as str."""
        try:
            return _dumps_strictly(value).encode("utf-8")
        except (TypeError, ValueError, RecursionError) as error:
            raise CodecError("codec 'json' cannot send the value: {}".format(error)) from error

    def decode(self, record: Buffer) -> Any:
        """See `Codec.decode`."""
        try:
            return json.loads(str(record, "utf-8"))
        except (ValueError, RecursionError) as error:
            raise CodecError("a record is no JSON: {}".format(error)) from error


class Pickle(_PackedCodec):
    """Any Python object; for jobs whose Python and modules are the same at both ends."""

    name = "pickle"

    def pack(self, value: Any) -> bytes:
        """See `Codec.encode`."""
        try:
            return pickle.dumps(value, 4)  # protocol 4: Python 3.4 and later read it
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
            raise CodecError("codec 'pickle' cannot send the value: {}".format(error)) from error

    def decode(self, record: Buffer) -> Any:
        """See `Codec.decode`; only for records of jobs that you trust like this one."""
        return pickle.loads(record)  # noqa: S301 - the sender is a job of the same pipeline


class Ndarray(Codec):
    """Numpy arrays only, without a tag."""

    name = "ndarray"
    reads_bytes = True

    def encode(self, value: Any) -> List[Buffer]:
        """See `Codec.encode`."""
        if not ndarray.is_array(value):
            raise CodecError(
                "codec 'ndarray' sends numpy arrays, and the value is of type {}: "
                "leave the codec out".format(_type_name(value))
            )
        return ndarray.encode(value)

    def decode(self, record: Buffer) -> Any:
        """See `Codec.decode`."""
        try:
            return ndarray.decode(record)
        except _DAMAGED as error:
            raise CodecError("a record is no numpy array: {}".format(error)) from error


class Msgpack(_PackedCodec):
    """MessagePack, as the package `msgpack` of the job's environment reads and writes it.

    Bytes and str stay what they are, tuples arrive as lists, and timestamps as `msgpack.Timestamp`.
    """

    name = "msgpack"

    def __init__(self) -> None:
        """Import the package.

        Raises:
            CodecError: It is not installed in the job's environment.
        """
        try:
            msgpack = importlib.import_module("msgpack")
        except ImportError as error:
            raise CodecError(
                "codec 'msgpack' needs the package msgpack, which is not installed here: add it to "
                "the requirements of this job ({})".format(error)
            ) from error
        self._packb: Callable[..., Any] = msgpack.packb
        self._unpackb: Callable[..., Any] = msgpack.unpackb

    def pack(self, value: Any) -> bytes:
        """See `Codec.encode`."""
        try:
            return bytes(self._packb(value, use_bin_type=True))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise CodecError("codec 'msgpack' cannot send the value: {}".format(error)) from error

    def decode(self, record: Buffer) -> Any:
        """See `Codec.decode`."""
        try:
            return self._unpackb(record, raw=False, strict_map_key=False)
        except Exception as error:  # the package has errors of its own
            raise CodecError("a record is no MessagePack: {}".format(error)) from error


AUTO = Auto()
RAW = Raw()
JSON = Json()
PICKLE = Pickle()
NDARRAY = Ndarray()

_NAMED: Dict[str, Codec] = {codec.name: codec for codec in (AUTO, RAW, JSON, PICKLE, NDARRAY)}


def tag_of(codec: Codec) -> Optional[bytes]:
    """What stands before bytes in their record; None if this codec may do anything to them."""
    if codec is RAW:
        return b""
    return b"b" if codec is AUTO else None


def codec_for(wanted: Union[str, Codec]) -> Codec:
    """The codec itself, or the one of that name.

    Raises:
        CodecError: There is none of that name.
    """
    if isinstance(wanted, Codec):
        return wanted
    codec = _NAMED.get(wanted)
    if codec is None and wanted == Msgpack.name:
        codec = _NAMED[wanted] = Msgpack()
    if codec is None:
        raise CodecError(
            "there is no codec {!r}: use one of {}, or an object of a class derived from "
            "shoal.job.Codec".format(wanted, ", ".join(sorted([Msgpack.name, *_NAMED])))
        )
    return codec


def composite_of(body: Buffer) -> Tuple[Any, List[slice]]:
    """The skeleton of a composite of `AUTO`, and where in it its parts are; how it begins is enough.

    Raises:
        struct.error: It ends before the lengths of its parts do.
        ValueError: It ends within its skeleton, or is damaged.
    """
    size, count = _PARTS.unpack_from(body)
    lengths = struct.unpack_from("<%dI" % count, body, _PARTS.size)
    position = _PARTS.size + 4 * count
    skeleton = json.loads(str(body[position : position + size], "ascii"))
    position += size
    parts: List[slice] = []
    for length in lengths:
        parts.append(slice(position, position + length))
        position += length
    return skeleton, parts


def flesh(skeleton: Any, parts: Sequence[Any]) -> Any:
    """The value of a skeleton, with these in the places of its parts."""
    if not isinstance(skeleton, dict):
        return skeleton
    ((kind, content),) = cast(Dict[str, Any], skeleton).items()
    if kind == "l":
        return [flesh(item, parts) for item in content]
    if kind == "t":
        return tuple([flesh(item, parts) for item in content])
    if kind == "d":
        return {flesh(key, parts): flesh(item, parts) for key, item in content}
    return parts[content]


def _is_json(value: Any) -> bool:
    """Whether JSON gives back exactly this value: no tuples, no keys but str, nothing derived."""
    kind = _type_of(value)
    if kind in _SCALARS:
        return True
    if kind is list:
        return all(_is_json(item) for item in value)
    if kind is dict:
        return all(type(key) is str and _is_json(item) for key, item in value.items())
    return False


def _bytes_of(view: memoryview) -> memoryview:
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def _type_name(value: Any) -> str:
    kind = _type_of(value)
    if kind.__module__ in ("builtins", "__main__"):
        return str(kind.__qualname__)
    return "{}.{}".format(kind.__module__, kind.__qualname__)


def _unsendable(value: Any) -> str:
    return (
        "a value of type {} cannot be sent as it is: send bytes, str, numbers, lists, tuples, "
        "dicts or numpy arrays, or let both ends of the stream use pickle "
        "(codecs={{'PORT': 'pickle'}})".format(_type_name(value))
    )
