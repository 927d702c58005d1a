"""Names as users type them."""

import click

from shoal.names import InvalidNameError, JobRef, PipelineRef, parse_job, parse_pipeline


def pipeline_or_job(name: str, namespace: str) -> PipelineRef | JobRef:
    """Read `P`, `P/J`, `pipelines/P` or `pipelines/P/jobs/J`.

    Raises:
        click.ClickException: it is none of these.
    """
    whole = "/" not in name or (name.count("/") == 1 and name.startswith("pipelines/"))
    try:
        return parse_pipeline(name, namespace) if whole else parse_job(name, namespace)
    except InvalidNameError as error:
        raise click.ClickException(str(error)) from None


def pipeline(name: str, namespace: str) -> PipelineRef:
    """Read `P` or `pipelines/P`.

    Raises:
        click.ClickException: it is neither.
    """
    try:
        return parse_pipeline(name, namespace)
    except InvalidNameError as error:
        raise click.ClickException(str(error)) from None


def job(name: str, namespace: str) -> JobRef:
    """Read `P/J` or `pipelines/P/jobs/J`.

    Raises:
        click.ClickException: it is neither.
    """
    found = pipeline_or_job(name, namespace)
    if isinstance(found, JobRef):
        return found
    raise click.ClickException(
        f"{name!r} names a whole pipeline; add the job, as in {found.pipeline}/JOB"
    )


def port(text: str) -> tuple[str, str]:
    """Cut `JOB.PORT` at the dot.

    Raises:
        click.ClickException: there is none, or too many.
    """
    job_name, _, port_name = text.partition(".")
    if not job_name or not port_name or "." in port_name:
        raise click.ClickException(
            f"{text!r} names no port; write the job, a dot and its output port: camera.frames"
        )
    return job_name, port_name
