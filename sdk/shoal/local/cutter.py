"""Raw formats at the client: plain bytes of a program, cut into records, and records as plain bytes."""

from __future__ import annotations

from shoal.errors import ShoalError
from shoal.job.block import MAX_RECORD_BYTES
from shoal.local.block import Records
from shoal.spec import PortBinding, PortFormat


class CutError(ShoalError):
    """Bytes that a format does not have."""

    def __init__(self, message: str) -> None:
        super().__init__("STREAM", message)


class Cutter:
    """Cuts bytes into records as they come.

    Args:
        binding: a raw format.
    """

    def __init__(self, binding: PortBinding) -> None:
        self._size = record_bytes(binding)
        self._rest: bytes = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the records that are whole now.

        Raises:
            CutError: A line is above the limit of a record.
        """
        data = self._rest + data
        if self._size:
            cut = len(data) - len(data) % self._size
            self._rest = data[cut:]
            return [data[at : at + self._size] for at in range(0, cut, self._size)]
        records = data.split(b"\n")
        self._rest = records.pop()
        if len(self._rest) > MAX_RECORD_BYTES:
            raise CutError(f"a line of more than {MAX_RECORD_BYTES} bytes; is a newline missing?")
        return records

    def finish(self) -> list[bytes]:
        """Return what the end of the bytes made whole: a last line without a newline.

        Raises:
            CutError: They end within a record.
        """
        rest, self._rest = self._rest, b""
        if self._size and rest:
            raise CutError(
                f"the port ended {len(rest)} bytes into a record of {self._size}; "
                "bytes:1 carries any number of bytes"
            )
        return [rest] if rest else []


def record_bytes(binding: PortBinding) -> int:
    """Return the size of a record; 0 for lines."""
    match binding.format:
        case PortFormat.U32:
            return 4
        case PortFormat.BYTES:
            return binding.record_bytes
        case _:
            return 0


def plain(binding: PortBinding, records: Records) -> bytes:
    """Return records as a program with a raw format reads them, without their headers.

    Raises:
        CutError: A record does not fit the format.
    """
    payloads = records.payloads()
    size = record_bytes(binding)
    for index, payload in enumerate(payloads):
        if size and len(payload) != size:
            raise CutError(
                f"record {records.first + index} has {len(payload)} bytes, the port takes {size}"
            )
        if not size and b"\n" in payload:
            raise CutError(
                f"record {records.first + index} holds a newline, which {binding.format.value} "
                "cannot carry; use blocks"
            )
    return b"".join(payloads) if size else b"".join(payload + b"\n" for payload in payloads)
