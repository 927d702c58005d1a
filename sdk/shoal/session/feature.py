"""What an agent can do that the first version could not, and which of it a job needs."""

import enum

from shoal.sandbox import ASKS_NOTHING
from shoal.spec import Job, Pipeline


class Feature(enum.StrEnum):
    """A word in an agent's Hello; a job that needs it is placed on no node whose agent does not say it."""

    PREFETCH = "prefetch"
    """It fetches bundles before they are needed (`BundlesWanted`), and says which it has (`BundlesHeld`)."""
    STAGES = "stages"
    """It says when it fetches and installs (`Observation.stages`)."""
    FOLDERS = "folder-inputs"
    """It fetches folder inputs (`Job.folders`)."""
    SECRETS = "secrets"
    """It hands secrets to jobs (`Job.secrets`, `Assignment.secrets`), and keeps their values sealed."""
    SANDBOX = "sandbox"
    """It starts a job in no less than the sandbox that the job asks for (`Job.sandbox`)."""


def needed_features(pipeline: Pipeline, job: Job) -> frozenset[Feature]:
    """Return what an agent has to be able to do to run this job."""
    found: set[Feature] = set()
    if pipeline.compat is not None and pipeline.compat.updates_topic and not job.local:
        found.add(Feature.STAGES)
    if job.folders:
        found.add(Feature.FOLDERS)
    if job.secrets:
        found.add(Feature.SECRETS)
    if job.sandbox != ASKS_NOTHING:
        found.add(Feature.SANDBOX)
    return frozenset(found)
