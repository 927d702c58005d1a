"""The options of `shoal run` that describe a command, and what a specification has instead.

What means the same for every job of a pipeline works with a specification, too: `--name` and `--env`.
Everything else belongs to one job. A pipeline has many, whose needs differ, and a file that is checked
and kept says more than a line that is typed once; so these options are refused, with the key to write.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import click

from shoal.spec import Pipeline

_KEYS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "folder": ("--bundle", "`bundle: FOLDER` at the top"),
        "stdin": ("--stdin", "`stdin: FILE` under the job"),
        "requirements": ("--requirements", "`environment: {requirements: FILE}` under the job"),
        "python": ("--python", "`environment: {python: '3.11'}` under the job"),
        "timeout_seconds": ("--timeout", "`timeout: 90s` under the job"),
        "retries": ("--retries", "`retry: 3`, the number of attempts, under the job"),
        "cpus": ("--cpus", "`resources: {cpus: 2}` under the job"),
        "memory_bytes": ("--memory", "`resources: {memory: 512MiB}` under the job"),
        "devices": ("--device", "`resources: {devices: [video]}` under the job"),
        "sandbox": ("--sandbox", "`sandbox: confined` under the job"),
        "require": ("--require", "`place: {require: {LABEL: value}}` under the job"),
        "archive": ("--archive", "`archive: [PATTERN]` under the job"),
    }
)
"""By the name of the parameter: the option, and what a specification says instead."""


def given(ctx: click.Context, name: str) -> bool:
    """Say whether a parameter was given, be it with the value that it has by default."""
    source = ctx.get_parameter_source(name)
    return source not in {None, click.core.ParameterSource.DEFAULT}


def refuse_beside_spec(ctx: click.Context, spec_path: Path) -> None:
    """Refuse the options that a specification says of each job.

    Raises:
        click.UsageError: one was given; it names the key.
    """
    for name, (option, key) in _KEYS.items():
        if given(ctx, name):
            raise click.UsageError(
                f"{option} is for a command after --, and {spec_path} says it itself; write {key}"
            )


def refuse_beside_command(ctx: click.Context) -> None:
    """Refuse the options that only a specification has a use for.

    Raises:
        click.UsageError: one was given.
    """
    for name, what in (
        ("replay", "a recording stands in for a job of a specification; name one"),
        ("record", "a command has no output ports; name a specification"),
        ("pace", "it is the pace of a recording in a specification; leave it out"),
        ("local_results", "a command has no local jobs; leave it out, or name a specification"),
    ):
        if given(ctx, name):
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} does not go with a command after --: {what}")


def with_options(pipeline: Pipeline, name: str, variables: Mapping[str, str]) -> Pipeline:
    """Give a pipeline the name and its programs the variables of the command line.

    Raises:
        click.UsageError: then the pipeline could not be run.
    """
    from shoal.check import check_pipeline

    if not name and not variables:
        return pipeline
    jobs = tuple(
        replace(job, variables={**job.variables, **variables}) if job.run else job
        for job in pipeline.jobs
    )
    changed = replace(pipeline, name=name or pipeline.name, jobs=jobs)
    for problem in check_pipeline(changed):
        option = "--env" if "variables" in problem.path else "--name"
        raise click.UsageError(f"{option}: {problem.message}")
    return changed
