"""Which sources of file inputs a controller gives its own credentials for."""

from dataclasses import dataclass

from services.archive.key import InvalidKeyError, check_key
from services.archive.source import SourceError, parse_prefix, parse_source
from shoal.spec import Pipeline


@dataclass(frozen=True, slots=True)
class SourceRule:
    """Lets listed buckets be read, and the archive by namespace alone.

    A user that may submit a pipeline may read what it lets pass, since agents get signed addresses.

    Attributes:
        buckets: buckets of `s3://` sources that an operator has listed.
        archive_bucket: bucket of the archive, if `s3://` sources are on its server; else empty.
        archive_prefix: where in that bucket the archive is, without a slash at the end.
    """

    buckets: frozenset[str] = frozenset()
    archive_bucket: str = ""
    archive_prefix: str = ""

    def check(self, namespace: str, source: str) -> None:
        """Let a source pass that a pipeline of `namespace` may read.

        Raises:
            SourceError: it may not; the words name the bucket or the key, and the remedy.
        """
        if source.startswith(("http://", "https://")):
            return
        if not source.startswith("s3://"):
            self._check_kept(namespace, source, source)
            return
        bucket, key = parse_source(source)
        below = f"{self.archive_prefix}/" if self.archive_prefix else ""
        if bucket == self.archive_bucket and key.startswith(below):
            self._check_kept(namespace, source, key.removeprefix(below))
        elif bucket not in self.buckets:
            raise self._unlisted("source", source, bucket)

    def check_prefix(self, namespace: str, prefix: str) -> None:
        """Let a prefix pass of which a pipeline of `namespace` may read everything below.

        Raises:
            SourceError: it may not; the words name the bucket or the prefix, and the remedy.
        """
        bucket, key = parse_prefix(prefix)
        below = f"{self.archive_prefix}/" if self.archive_prefix else ""
        if bucket == self.archive_bucket and (key.startswith(below) or below.startswith(key)):
            kept = key.removeprefix(below) if key.startswith(below) else ""
            if not kept.startswith(f"{namespace}/"):
                raise SourceError(
                    f"prefix {prefix!r} holds more of the archive than namespace {namespace!r}: "
                    f"name a folder below s3://{bucket}/{below}{namespace}/"
                )
        elif bucket not in self.buckets:
            raise self._unlisted("prefix", prefix, bucket)

    def _unlisted(self, what: str, source: str, bucket: str) -> SourceError:
        listed = ", ".join(sorted(self.buckets)) or "none"
        return SourceError(
            f"{what} {source!r} lies in bucket {bucket!r}, which this controller does not read "
            f"for others; list it with --source-buckets {bucket} (listed: {listed})"
        )

    def problem(self, namespace: str, spec: Pipeline) -> tuple[str, str] | None:
        """Return where in a specification a source is that may not be read, and why; None if none is."""
        for job in spec.jobs:
            for file in job.files:
                try:
                    self.check(namespace, file.source)
                except SourceError as error:
                    return f"jobs.{job.name}.inputs.{file.name}.source", str(error)
            for folder in job.folders:
                try:
                    if folder.prefix:
                        self.check_prefix(namespace, folder.prefix)
                except SourceError as error:
                    return f"jobs.{job.name}.inputs.{folder.name}.prefix", str(error)
        return None

    @staticmethod
    def _check_kept(namespace: str, source: str, key: str) -> None:
        """Let a key of the archive pass that lies in the namespace."""
        try:
            check_key(key)
        except InvalidKeyError as error:
            raise SourceError(f"source {source!r}: {error}") from None
        if not key.startswith(f"{namespace}/"):
            raise SourceError(
                f"source {source!r} is no key of namespace {namespace!r} in the archive, and no "
                f"address; keys of that namespace begin with {namespace}/"
            )
