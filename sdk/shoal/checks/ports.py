"""What has to hold of the ports of a job."""

import re
from collections import Counter
from collections.abc import Iterator

from shoal import limits, spec
from shoal.checks.problem import Path, Problem, and_, id_problems
from shoal.limits import KEEP_MAX, PORTS_MAX
from shoal.suggestion import did_you_mean

PORT_PLACE = re.compile(r"\{(inputs|outputs)\.([^{}.]*)\.(fd|path)\}")
"""What the agent replaces in a word of `run`: `{inputs.frames.fd}`."""


def port_problems(job: spec.Job, at: Path) -> Iterator[Problem]:
    """Yield what is wrong with the ports of a job by themselves."""
    if job.run or not job.local:
        yield from _placeholders(job, at)
        yield from _optional(job, at)
        yield from _latest(job, at)
        yield from _resumed(job, at)
    inputs = [
        *(item.name for item in job.streams),
        *(item.name for item in job.files),
        *(item.name for item in job.folders),
    ]
    outputs = [item.name for item in job.outputs]
    for kind, found in (("inputs", inputs), ("outputs", outputs)):
        for name, count in Counter(found).items():
            yield from id_problems((*at, kind, name), "port", name)
            if count > 1:
                yield Problem(
                    (*at, kind, name), f"{count} {kind} have this name; give each its own"
                )
    fifo = spec.PortAttachment.FIFO
    paths = {item.name for item in job.streams if item.binding.attachment is fifo}
    for output in job.outputs:
        if output.binding.attachment is fifo and output.name in paths:
            yield Problem(
                (*at, "outputs", output.name),
                f"an input of the job is called {output.name!r}, too, and both are FIFOs of that "
                f"name; give the output another one, such as {f'{output.name}-out'!r}",
            )
    bindings = [
        *(((*at, "inputs", item.name), item.binding) for item in job.streams),
        *(((*at, "outputs", item.name), item.binding) for item in job.outputs),
    ]
    for path, binding in bindings:
        yield from _binding((*path, "format"), binding)
    for output in job.outputs:
        yield from _key((*at, "outputs", output.name, "key"), output)
    most = PORTS_MAX // 2 if job.local else PORTS_MAX
    if len(bindings) > most:
        yield Problem(
            at,
            f"{'a local job' if job.local else 'a job'} has at most {most} ports, and this one has "
            f"{len(bindings)}; send several kinds of records through one port, or split the job",
        )
    yield from _stdio(job, at)


def _placeholders(job: spec.Job, at: Path) -> Iterator[Problem]:
    ports = {
        "inputs": {stream.name: stream.binding for stream in job.streams},
        "outputs": {output.name: output.binding for output in job.outputs},
    }
    for direction, port, kind in (found for word in job.run for found in PORT_PLACE.findall(word)):
        binding = ports[direction].get(port)
        mark = f"{{{direction}.{port}.{kind}}}"
        if binding is None:
            yield Problem(
                (*at, "run"),
                f"{mark} names no port of the job's {direction}; "
                f"{did_you_mean(port, ports[direction])}",
            )
        elif (binding.attachment is spec.PortAttachment.FIFO) != (kind == "path"):
            other = "path" if kind == "fd" else "fd"
            yield Problem(
                (*at, "run"),
                f"{mark} does not fit, because the port is {'a FIFO' if kind == 'fd' else 'no FIFO'}; "
                f"write {{{direction}.{port}.{other}}}, or give the port "
                f"`as: {'fd' if kind == 'fd' else 'fifo'}`",
            )


def _optional(job: spec.Job, at: Path) -> Iterator[Problem]:
    optional = [stream for stream in job.streams if stream.optional is not None]
    if optional and len(optional) == len(job.streams):
        yield Problem(
            (*at, "inputs"),
            "rounds follow the inputs that are not optional, and there is none; leave out "
            "`optional: true` at one of them",
        )
    for stream in optional:
        path = (*at, "inputs", stream.name)
        if stream.binding != spec.PortBinding():
            yield Problem(
                (*path, "format"),
                "rounds are made by shoal.job, so an optional input has no other format and is "
                "not stdin; leave out `format` and `as`, or `optional: true`",
            )
        if stream.block_count > 1:
            yield Problem(
                (*path, "block_count"),
                "an optional input gives one record a round; leave out `block_count`",
            )
        if job.recovery is spec.Recovery.RESUME:
            yield Problem(
                (*path, "optional"),
                "which round an optional record came to is not known to a replacement; use "
                "`recovery: restart`",
            )


def _latest(job: spec.Job, at: Path) -> Iterator[Problem]:
    latest = [item for item in job.streams if item.promise is spec.Promise.LATEST]
    for stream in latest:
        path = (*at, "inputs", stream.name)
        if len(job.streams) > 1 and stream.optional is None:
            yield Problem(
                (*path, "promise"),
                "records of several inputs are paired by their number, and here some are dropped; "
                "add `optional: true`, or leave it the job's only stream",
            )
        if stream.block_count > 1:
            yield Problem(
                (*path, "block_count"),
                "between the records of a list some may have been dropped; leave out `block_count`",
            )
        if not 1 <= stream.keep <= KEEP_MAX:
            yield Problem(
                (*path, "keep"), f"{stream.keep} records cannot wait; write 1 to {KEEP_MAX}"
            )
        if job.recovery is spec.Recovery.RESUME and stream.optional is None:
            yield Problem(
                (*path, "promise"),
                "records that were dropped are not there for a replacement that goes on at a "
                "round; use `recovery: restart`",
            )


def _resumed(job: spec.Job, at: Path) -> Iterator[Problem]:
    for stream in job.streams:
        if job.recovery is spec.Recovery.RESUME and stream.merge is spec.Merge.ARRIVAL:
            yield Problem(
                (*at, "inputs", stream.name, "merge"),
                "a job with `recovery: resume` goes on at a round, and records that are "
                "merged as they arrive have none; use `merge: ordered` or `recovery: restart`",
            )


def _binding(path: Path, binding: spec.PortBinding) -> Iterator[Problem]:
    if binding.format is spec.PortFormat.BYTES:
        if not 1 <= binding.record_bytes <= limits.RECORD_BYTES_MAX:
            yield Problem(
                path,
                f"a record of bytes:{binding.record_bytes} is not possible; "
                f"use 1 to {limits.RECORD_BYTES_MAX} bytes",
            )
    elif binding.record_bytes:
        yield Problem(path, f"{binding.format.value} has no record size; use bytes:N")
    if binding.attachment is spec.PortAttachment.FIFO and binding.format is spec.PortFormat.BLOCKS:
        yield Problem(
            path,
            "blocks go both ways, and a FIFO carries plain bytes in one; give the port a format: "
            "lines, jsonl, u32 or bytes:N",
        )


def _key(path: Path, output: spec.Output) -> Iterator[Problem]:
    if not output.key:
        return
    if output.distribute is not spec.Distribute.KEY:
        yield Problem(path, "only `distribute: key` spreads records by a key; add it")
    match output.binding.format:
        case spec.PortFormat.JSONL:
            pass
        case spec.PortFormat.LINES:
            if not (output.key.isascii() and output.key.isdecimal() and int(output.key)):
                yield Problem(
                    path,
                    f"{output.key!r} is no field of a line; write its number, from 1, "
                    "or leave it out for the whole line",
                )
        case spec.PortFormat.BLOCKS:
            yield Problem(
                path,
                "agents do not look into records; send with a key, as in "
                '`port.send(value, key="cam-3")`, and leave this out',
            )
        case _:
            yield Problem(path, "such a record has no parts, so all of it is the key; leave it out")


def _stdio(job: spec.Job, at: Path) -> Iterator[Problem]:
    stdio = spec.PortAttachment.STDIO
    readers = [item.name for item in job.streams if item.binding.attachment is stdio]
    writers = [item.name for item in job.outputs if item.binding.attachment is stdio]
    if len(readers) > 1:
        yield Problem(
            (*at, "inputs", readers[1], "as"),
            f"the inputs {and_(readers)} are all on stdin; leave one, and give the others `as: fd`",
        )
    if readers and job.stdin:
        yield Problem(
            (*at, "stdin"),
            f"the input {readers[0]!r} is on stdin already; "
            "leave `stdin` out, or give the input `as: fd`",
        )
    if len(writers) > 1:
        yield Problem(
            (*at, "outputs", writers[1], "as"),
            f"the outputs {and_(writers)} are all on stdout; "
            "leave one, and give the others `as: fd`",
        )
