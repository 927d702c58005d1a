"""The steps of an environment: a list of them, or the short form without one."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import PurePosixPath

import yaml

from shoal import spec
from shoal.checks.problem import Path
from shoal.specfile.scalars import Scalars
from shoal.specfile.tree import mark_of

STEP_KINDS = ("requirements", "url", "wheel", "pip", "constraints")
"""The keys that are steps."""


def read_steps(scalars: Scalars, node: yaml.Node, path: Path) -> tuple[spec.EnvironmentStep, ...]:
    """Read the list of steps; what was wrong with them is left with `scalars`."""
    steps: list[spec.EnvironmentStep] = []
    for item in scalars.items(node, path, "a list of steps") or ():
        at = (*path, str(len(steps)))
        scalars.note(at, mark_of(item.start_mark))
        fields = scalars.fields(
            item, at, (*STEP_KINDS, "sha256"), "a mapping such as {requirements: FILE}"
        )
        if fields is None:
            continue
        kinds = [kind for kind in fields if kind != "sha256"]
        if len(kinds) != 1 or ("sha256" in fields and kinds != ["url"]):
            scalars.complain(
                at,
                f"a step has one of {', '.join(STEP_KINDS)} (and `sha256` beside `url`)",
                item,
            )
            continue
        step = _step(scalars, kinds[0], fields[kinds[0]], fields.get("sha256"), at)
        if step is not None:
            steps.append(step)
    return tuple(steps)


def read_short_steps(
    scalars: Scalars, short: Mapping[str, yaml.Node], path: Path
) -> tuple[spec.EnvironmentStep, ...]:
    """Read steps that stand in the environment itself, in the order of the file."""
    steps: list[spec.EnvironmentStep] = []
    if "sha256" in short and "url" not in short:
        scalars.complain((*path, "sha256"), "it belongs to a `url`")
    for kind, node in short.items():
        if kind == "sha256":
            continue
        values = [node]
        if kind != "pip":
            values = scalars.items(node, (*path, kind), "a path or a list of paths") or []
        for value in values:
            at = (*path, "steps", str(len(steps)), kind)
            scalars.note(at, mark_of(value.start_mark))
            scalars.note(at[:-1], mark_of(value.start_mark))
            step = _step(scalars, kind, value, short.get("sha256"), (*path, kind))
            if step is not None:
                steps.append(step)
    return tuple(steps)


def fetching_wheels(job: spec.Job) -> spec.Job:
    """Let wheels that stand in a bucket be file inputs, which are fetched before the environment is built."""
    files = [*job.files]
    steps: list[spec.EnvironmentStep] = []
    taken = {one.name for one in job.streams}
    taken |= {one.name for one in job.files} | {one.name for one in job.folders}
    for step in job.environment.steps:
        if not isinstance(step, spec.WheelStep) or not step.path.startswith("s3://"):
            steps.append(step)
            continue
        name = next(name for number in count(1) if (name := f"wheel-{number}") not in taken)
        taken.add(name)
        path = f"wheels/{PurePosixPath(step.path).name}"
        files.append(spec.FileInput(name, step.path, path))
        steps.append(spec.WheelStep(path))
    if len(files) == len(job.files):
        return job
    environment = replace(job.environment, steps=tuple(steps))
    return replace(job, files=tuple(files), environment=environment)


def _step(
    scalars: Scalars, kind: str, node: yaml.Node, sha256: yaml.Node | None, path: Path
) -> spec.EnvironmentStep | None:
    if kind == "pip":
        words = scalars.words(node, path, "a list of pip's arguments")
        return None if words is None else spec.PipStep(tuple(word.text for word in words))
    text = scalars.text(node, path)
    if text is None:
        return None
    if kind in spec.FILE_STEPS:
        return spec.FILE_STEPS[kind](text)
    digest = scalars.text(sha256, path) if sha256 is not None else ""
    return spec.UrlStep(text, digest or "")
