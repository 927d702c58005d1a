"""Where an S3 server stands; loads nothing of Amazon's libraries, which takes a while."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where a server stands; credentials come from the environment, as boto3 finds them.

    `endpoint` is empty for Amazon's own.
    """

    endpoint: str = ""
    region: str = "us-east-1"
