"""What a job's streams promise, and what its replacement would do, in sentences."""

from collections.abc import Iterator

from shoal import spec


def recovery_explanation(pipeline: spec.Pipeline, job: spec.Job) -> tuple[str, ...]:
    """Say where a job's records come from and go to, and how it goes on after a board has died."""
    return (*_streams(pipeline, job), _replacement(pipeline, job))


def _streams(pipeline: spec.Pipeline, job: spec.Job) -> Iterator[str]:
    for stream in job.streams:
        producer = pipeline.job(stream.job)
        output = next(one for one in producer.outputs if one.name == stream.port)
        said = [f"{stream.name} comes from {stream.job}.{stream.port}"]
        if job.replicas > 1:
            said.append(f"{_spread(output)} of {job.replicas} replicas")
        if producer.replicas > 1:
            order = "in turn" if stream.merge is spec.Merge.ORDERED else "as they arrive"
            said.append(f"the streams of {producer.replicas} replicas become one {order}")
        if stream.promise is spec.Promise.LATEST:
            newest = "the newest record" if stream.keep == 1 else f"the newest {stream.keep}"
            said.append(
                f"{newest} alone: what does not fit is dropped, and the producer never waits"
            )
        if stream.optional is not None:
            said.append("rounds do not wait for it")
        yield "; ".join(said)
    for output in job.outputs:
        for consumer, stream in pipeline.readers(job.name, output.name):
            goes = f"{output.name} goes to {consumer.name}.{stream.name}"
            if consumer.replicas > 1:
                goes += f"; {_spread(output)} of {consumer.replicas} replicas"
            yield goes


def _replacement(pipeline: spec.Pipeline, job: spec.Job) -> str:
    if not job.streams and not job.outputs:
        return "a replacement starts anew"
    if job.recovery is spec.Recovery.RESUME:
        return "a replacement goes on with the round that is missing"
    if any(stream.promise is spec.Promise.LATEST for stream in job.streams):
        return "a replacement begins with what is newest"
    why = next(_not_resumable(pipeline, job), "")
    begins = (
        "a replacement gets its records again from the first one"
        if job.streams
        else "a replacement begins with the first record again"
    )
    return f"{begins}, because {why}" if why else begins


def _not_resumable(pipeline: spec.Pipeline, job: spec.Job) -> Iterator[str]:
    for stream in job.streams:
        if stream.merge is spec.Merge.ARRIVAL:
            yield f"{stream.name} takes records as they arrive"
        if stream.optional is not None:
            yield f"{stream.name} is optional"
    for output in job.outputs:
        readers = [consumer for consumer, _ in pipeline.readers(job.name, output.name)]
        if output.distribute is spec.Distribute.KEY and any(one.replicas > 1 for one in readers):
            yield f"{output.name} is spread by key"


def _spread(output: spec.Output) -> str:
    match output.distribute:
        case spec.Distribute.ROUND_ROBIN:
            return "each record to one, in turn,"
        case spec.Distribute.BROADCAST:
            return "each record to every one"
        case spec.Distribute.KEY:
            part = f" ({output.key})" if output.key else ""
            return f"equal keys{part} to the same one"
