"""What can go wrong between job code and its ports."""


class JobError(Exception):
    """Something is wrong between this job and its ports; the message says what to do."""


class OutsideShoalError(JobError):
    """The program was started by hand, so it has no ports."""


class PortError(JobError):
    """A port does not exist, is used wrongly, or its other end broke the format or went away."""


class OutputClosedError(PortError):
    """No consumer wants what this job sends any more, so it may end; that is a good end."""


class CodecError(JobError):
    """A value cannot be sent by its port's codec, or a record cannot be read by it."""


class RoundError(JobError):
    """What a round returned does not fit the job's outputs."""


class HeaderError(JobError):
    """A record's headers cannot be sent, read or merged."""
