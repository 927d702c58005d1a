"""What has to hold for a pipeline that a dashboard knows as a task."""

from collections.abc import Iterator, Sequence

from shoal.checks.problem import Problem
from shoal.compat import Compat, compat_name_problem
from shoal.spec import Job

_AT = ("compat",)


def compat_problems(compat: Compat, jobs: Sequence[Job]) -> Iterator[Problem]:
    """Yield what is wrong with names, with what they are needed for, and with the jobs."""
    names = {"user": compat.user, "action": compat.action, "task": compat.task}
    for key, name in names.items():
        if problem := compat_name_problem(name):
            yield Problem((*_AT, key), f"{name[:40]!r} {problem}")
    wishes = {
        "updates_topic": ("user", "task") if compat.updates_topic else (),
        "legacy_results": tuple(names) if compat.legacy_results else (),
    }
    for wish, needed in wishes.items():
        missing = [key for key in needed if not names[key]]
        if missing:
            examples = {"user": "ada", "action": "Classification", "task": "task7"}
            remedy = ", ".join(f"{key}: {examples[key]}" for key in missing)
            yield Problem((*_AT, wish), f"it needs {' and '.join(missing)}; add `{remedy}`")
    if not any(wishes.values()):
        return
    asked = " and ".join(f"`{wish}`" for wish, needed in wishes.items() if needed)
    if len(jobs) > 1 or any(job.replicas > 1 for job in jobs):
        yield Problem(
            _AT,
            f"a task of the dashboard is one program, and {asked} would mix those of several; "
            "leave one job without replicas, or submit each as a pipeline of its own",
        )
    for job in jobs:
        if job.local:
            yield Problem(
                _AT,
                f"the job {job.name!r} is local, and {asked} tells of jobs on nodes; "
                "leave out `local` or `compat`",
            )
