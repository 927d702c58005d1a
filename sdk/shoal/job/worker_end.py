"""The stream worker's end of a port, for what runs a program without one: tests, and local jobs.

What is said to a program and taken from it is the same as on a board (docs/architecture.md, section
3). Pure: bytes in, bytes and records out.
"""

import json
import struct
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Sequence

from shoal.job import block as blocks
from shoal.job.block_reader import BlockReader
from shoal.job.error import PortError


def variables(
    namespace: str,
    pipeline: str,
    job: str,
    recovery: str,
    results: Path,
    ports: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> Dict[str, str]:
    """The variables that an agent would set, of the first attempt of a job with one replica.

    `ports` has under `inputs` and `outputs` what is known of each port, by its name.
    """
    return {
        "SHOAL_NAMESPACE": namespace,
        "SHOAL_PIPELINE": pipeline,
        "SHOAL_JOB": job,
        "SHOAL_REPLICA": "0",
        "SHOAL_REPLICAS": "1",
        "SHOAL_ATTEMPT": "1",
        "SHOAL_EPOCH": "1",
        "SHOAL_NAME": "pipelines/{}/jobs/{}/attempts/1".format(pipeline, job),
        "SHOAL_RECOVERY": recovery,
        "SHOAL_RESULTS": str(results),
        "SHOAL_PORTS": json.dumps(ports, separators=(",", ":")),
    }


def expanded(
    argv: Sequence[str], ports: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> List[str]:
    """The words of a command with the number or the path of each port in the place of its mark."""
    words: List[str] = list(argv)
    for direction, known in ports.items():
        for name, port in known.items():
            for kind in ("fd", "path"):
                mark = "{{{}.{}.{}}}".format(direction, name, kind)
                place = str(port.get(kind, mark))
                words = [word.replace(mark, place) for word in words]
    return words


def start_block(first: int, recovery: str, block_count: int) -> bytes:
    """What a port of format `blocks` begins with: START, which says where and how it goes on."""
    said = {"recovery": recovery, "epoch": 1, "block_count": block_count}
    return blocks.encode_text(blocks.START, first, json.dumps(said))


class WorkerEnd:
    """Reads what a program writes on a port of format `blocks`.

    Args:
        output: Whether records come, and not acknowledgements.
        first: Sequence of the first record, from 0.
        progress: Takes what the program says of its own progress.
    """

    def __init__(self, first: int, progress: Callable[[str], Any], *, output: bool) -> None:
        self._output = output
        self._progress = progress
        self._reader = BlockReader()
        self.next = first
        """Sequence of the record that is due; of an input, how many records are processed."""
        self.ended = False

    def feed(self, data: blocks.Buffer) -> List[blocks.Block]:
        """The blocks of records that are complete with `data`.

        Raises:
            PortError: The program breaks the format.
        """
        return [block for block in self._reader.feed(data) if self._take(block)]

    def finish(self) -> None:
        """Check that the bytes may end here.

        Raises:
            PortError: It comes in the middle of a block.
        """
        if self._reader.inside:
            raise PortError(
                "it broke off in the middle of the block at byte {}".format(self._reader.offset)
            )

    def _take(self, block: blocks.Block) -> bool:
        if block.kind == blocks.DATA and self._output and not self.ended:
            if block.first != self.next:
                raise PortError("record {} came where {} was due".format(block.first, self.next))
            self.next += block.total
            return True
        if block.kind == blocks.END and self._output and not self.ended:
            if block.first != self.next:
                raise PortError(
                    "it ended at record {}, and {} have come".format(block.first, self.next)
                )
            self.ended = True
        elif block.kind == blocks.ACK and not self._output:
            self.next = block.first
        elif block.kind == blocks.PROGRESS:
            self._progress(str(bytes(block.body), "utf-8", "replace"))
        else:
            raise PortError("a block of kind {} out of turn".format(block.kind))
        return False


class RawFormat:
    """A format without blocks: records of one size, or lines where `size` is 0.

    Args:
        name: `lines`, `jsonl`, `u32` or `bytes:N`.

    Raises:
        PortError: There is no such format.
    """

    def __init__(self, name: str) -> None:
        kind, _, size = name.partition(":")
        self.name = name
        self._rest: bytes = b""
        if name in ("lines", "jsonl"):
            self.size = 0
        elif name == "u32":
            self.size = 4
        elif kind == "bytes" and size.isdigit() and int(size):
            self.size = int(size)
        else:
            raise PortError(
                "there is no format {!r}: use blocks, lines, jsonl, u32 or bytes:N".format(name)
            )

    def render(self, first: int, records: Sequence[bytes]) -> bytes:
        """Records as a program reads them; `first` is the sequence of the first one.

        Raises:
            PortError: A record does not fit the format.
        """
        for index, record in enumerate(records):
            if self.size and len(record) != self.size:
                raise PortError(
                    "record {} has {} bytes, the port takes {}".format(
                        first + index, len(record), self.size
                    )
                )
            if not self.size and b"\n" in record:
                raise PortError(
                    "record {} holds a newline, which {} cannot carry; use blocks".format(
                        first + index, self.name
                    )
                )
        return b"".join(records) if self.size else b"".join([one + b"\n" for one in records])

    def feed(self, data: bytes) -> List[bytes]:
        """The records that are whole with `data`.

        Raises:
            PortError: A line is above the limit of a record.
        """
        data = self._rest + data
        if self.size:
            cut = len(data) - len(data) % self.size
            self._rest = data[cut:]
            return [data[at : at + self.size] for at in range(0, cut, self.size)]
        records = data.split(b"\n")
        self._rest = records.pop()
        if len(self._rest) > blocks.MAX_RECORD_BYTES:
            raise PortError(
                "a line of more than {} bytes; is a newline missing?".format(
                    blocks.MAX_RECORD_BYTES
                )
            )
        return records

    def finish(self) -> List[bytes]:
        """What the end of the bytes made whole: a last line without a newline.

        Raises:
            PortError: They end within a record.
        """
        rest, self._rest = self._rest, b""
        if self.size and rest:
            raise PortError(
                "the port ended {} bytes into a record of {}; "
                "bytes:1 carries any number of bytes".format(len(rest), self.size)
            )
        return [rest] if rest else []


def to_record(port_format: str, value: Any) -> bytes:
    """A value as a record of a raw format."""
    if port_format == "jsonl":
        return json.dumps(value, separators=(",", ":")).encode("utf-8")
    if port_format == "u32":
        return struct.pack("<I", value)
    return value.encode("utf-8") if isinstance(value, str) else bytes(value)


def from_record(port_format: str, record: bytes) -> Any:
    """The value of a record of a raw format."""
    if port_format == "jsonl":
        return json.loads(str(record, "utf-8"))
    if port_format == "u32":
        return struct.unpack("<I", record)[0]
    return str(record, "utf-8", "surrogateescape") if port_format == "lines" else record
