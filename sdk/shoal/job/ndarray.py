"""Numpy arrays as records: shape and type in front, then the numbers as they lie in memory.

Numpy is the job's own and is imported only where an array arrives.
"""

import importlib
import json
import struct
import sys
from typing import Any, List, Tuple

from shoal.job.block import Buffer
from shoal.job.error import CodecError

_HEAD = struct.Struct("<xH")  # bytes of the description that follows; keeps the head even
_ALIGNMENT = 16
_BEFORE = 5  # bytes before it in a block of one record: the record's length and the codec's tag


def is_array(value: Any) -> bool:
    """Whether it is a numpy array; there is none where numpy was never imported."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray


def is_scalar(value: Any) -> bool:
    """Whether it is a number of one of numpy's own types."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic)


def encode(value: Any) -> List[Buffer]:
    """Description and numbers; the numbers are copied only if they do not lie in one piece.

    Raises:
        CodecError: The array holds Python objects or fields.
    """
    numpy = importlib.import_module("numpy")
    array = numpy.asarray(value)
    if array.dtype.hasobject or array.dtype.names is not None:
        raise CodecError(
            "a numpy array of dtype {} cannot be sent as it is: send arrays of numbers, or let both "
            "ends of the stream use pickle (codecs={{'PORT': 'pickle'}})".format(array.dtype)
        )
    if array.dtype.kind == "V":
        raise CodecError("a numpy array of dtype {} cannot be sent".format(array.dtype))
    description = json.dumps({"dtype": array.dtype.str, "shape": array.shape}).encode("ascii")
    size = _BEFORE + _HEAD.size + len(description)
    description += b" " * (-size % _ALIGNMENT)  # so that the numbers arrive aligned
    numbers = numpy.ascontiguousarray(array).reshape(-1).view("u1")
    return [_HEAD.pack(len(description)) + description, memoryview(numbers)]


def described(record: memoryview) -> Tuple[str, List[int]]:
    """Its dtype and shape, without numpy; all that is needed is how the record begins.

    Raises:
        ValueError: The record is damaged.
    """
    if len(record) < _HEAD.size:
        raise ValueError("it is too short for an array")
    (size,) = _HEAD.unpack_from(record)
    description: Any = json.loads(str(record[_HEAD.size : _HEAD.size + size], "ascii"))
    try:
        shape: List[Any] = description["shape"]
        return str(description["dtype"]), [int(length) for length in shape]
    except (KeyError, TypeError) as error:
        raise ValueError("it does not describe an array") from error


def decode(record: Buffer) -> Any:
    """The array, over the record's own memory if it lies well there, and writable.

    Raises:
        CodecError: Numpy is not installed in this job's environment.
        ValueError: The record is damaged.
    """
    try:
        numpy = importlib.import_module("numpy")
    except ImportError as error:
        raise CodecError(
            "a numpy array arrived, and numpy is not installed here: add it to the requirements "
            "of this job ({})".format(error)
        ) from error
    (size,) = _HEAD.unpack_from(record)
    begin = _HEAD.size + size
    description = json.loads(str(record[_HEAD.size : begin], "ascii"))
    dtype = numpy.dtype(description["dtype"])
    if begin == len(record):
        # Some versions refuse an empty buffer.
        return numpy.empty(0, dtype).reshape(description["shape"])
    array = numpy.frombuffer(record[begin:], "u1").view(dtype).reshape(description["shape"])
    # Small ones lie among others in bytes, which may not be written to.
    return array if array.flags.aligned and array.flags.writeable else array.copy()
