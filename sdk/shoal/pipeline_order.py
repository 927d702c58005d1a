"""In which order pipelines are listed."""

import enum


class PipelineOrder(enum.Enum):
    """An order of pipelines that holds while others come and go; the names are those of the contract."""

    NEWEST = "newest"
    """The one that was submitted last comes first."""
    OLDEST = "oldest"
    """The one that was submitted first comes first."""
    ENDED = "ended"
    """Those that have ended alone; the one that ended last comes first."""
