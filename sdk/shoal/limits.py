"""How large, how long and how many things may be: the one table of what a message can carry.

The reader of specification files, `shoal.check` and `shoal.wire` share these numbers, so that what
`shoal validate` lets pass is what the controller takes, and what the controller takes fits into its
store, its clock and its messages. docs/limits.md says the same to people.
"""

import math

INTEGER_MAX = 2**63 - 1
"""Largest size in bytes, epoch or count of records: what an SQLite integer holds."""

DURATION_SECONDS_MAX = 3_650 * 86_400.0
"""Longest duration, ten years: added to any moment of this century it is still a date."""

MOMENT_SECONDS_MAX = 253_370_764_800
"""Latest moment, the year 9999 in seconds since 1970; one day in it fits into every time zone."""

CPUS_MAX = 1_000_000.0
"""Most cores of a node, or for a replica."""

PROCESSES_MAX = 4_194_304
"""Most processes and threads that a replica may claim: the most that the kernel numbers (proc(5), pid_max)."""

PROCESSES_DEFAULT = 4096
"""Processes and threads of a job that claims none, where they bind."""

RETRY_ATTEMPTS_MAX = 1_000_000
"""Most attempts that a specification may grant a job."""

BLOCK_COUNT_MAX = 1_000_000
"""Most records of an input in a round."""

BUFFER_MAX = 1_000_000
"""Most records of an optional input that may wait."""

KEEP_MAX = 10_000
"""Most records that may wait for an input with `promise: latest`."""

NUMBER_MAX = 2**32 - 1
"""Largest number of an attempt."""

RECORDS_MAX = 2**53
"""Most records of a stream where they are counted for a scale: a million a second for 285 years."""

RECORD_BYTES_MAX = 256 * 1024 * 1024
"""Largest record of a stream, with its headers (docs/architecture.md, section 3)."""

PART_BYTES = 512 * 1024
"""A large block is cut into parts of at least this size as it travels."""

PART_BYTES_MAX = 2 * PART_BYTES
"""No part has so many bytes of the body."""

WHOLE_BYTES_MAX = PART_BYTES_MAX + 64 * 1024
"""A body up to this size travels in one message: a record of 1 MiB is not worth two."""

JOBS_MAX = 20_000
"""Most jobs of a pipeline, replicas counted."""

LANES_MAX = 20_000
"""Most streams between single replicas of a pipeline."""

PORTS_MAX = 200
"""Most ports of a job; a local job has half as many, since its portal has two for each.

The kernel passes at most 253 descriptors at once (SCM_MAX_FD, unix(7)).
"""

COMMAND_BYTES_MAX = 48 * 1024
"""Most bytes of `run` and `variables` together, written as JSON: they travel in one packet."""

SPEC_BYTES_MAX = 4 * 1024 * 1024
"""Largest specification, as the contract encodes it."""

JOB_BYTES_MAX = 1024 * 1024
"""Largest job of a specification, as the contract encodes it: it travels in one message."""

DEFAULT_JSON_BYTES_MAX = 64 * 1024
"""Longest JSON that stands in for a record of an optional input."""

JSON_DEPTH_MAX = 64
"""How deeply lists and objects of such JSON may lie within each other."""

LABELS_MAX = 256
"""Most labels of a pipeline or a node."""

LABEL_CHARACTERS_MAX = 1_024
"""Longest key or value of a label."""

FACT_CHARACTERS_MAX = 256
"""Longest word of a fact of a node, such as the name of its board; what is longer is cut."""

MOVE_SECONDS_MAX = 30 * 86_400.0
"""Longest time that is given to what runs on a node that is drained, in seconds."""

PARAMETERS_MAX = 256
"""Most parameters of a specification."""

PARAMETER_CHARACTERS_MAX = 4_096
"""Longest text that is the value of a parameter."""

DEVICES_MAX = 256
"""Most device classes of a node, or for a replica."""

WORD_CHARACTERS_MAX = 256
"""Longest single word that a peer says of itself: an address, a version, the class of a device."""

ARTIFACTS_MAX = 50_000
"""Most artifacts of an attempt: their list travels in one message, as do the addresses for them."""

ARTIFACT_PATH_BYTES_MAX = 8 * 1024 * 1024
"""Most bytes of the paths of an attempt's artifacts together."""

ARTIFACT_CONTENT_BYTES_MAX = 64 * 1024
"""Most bytes of an artifact that travels with the question where to store it."""

ARTIFACT_CONTENTS_BYTES_MAX = 256 * 1024
"""Most bytes of all such artifacts of one question."""

ARTIFACT_CONTENTS_MAX = 1_000
"""Most such artifacts of one question, since empty ones have no bytes."""

LOG_PLACES_MAX = 10_000
"""Most places at which a reader of logs goes on after a cut, in one request."""

FOLDER_FILES_MAX = 50_000
"""Most files of a folder input."""

FOLDER_BYTES_MAX = 1 << 40
"""Most bytes of the files of a folder input together: 1 TiB."""

FOLDER_KEYS_MAX = 200_000
"""Most keys below the prefix of a folder input, those that it does not take counted."""

ADDRESSES_MAX = 100
"""Most addresses of files of a folder input that an agent asks for at once."""

SHOWN_ARTIFACTS_MAX = 2_000
"""Most artifacts that the picture of a pipeline lists, and a page of the list of a job's."""

SHOWN_ATTEMPTS_MAX = 50
"""Most attempts of a job that the picture of its pipeline shows: the newest."""

SHOWN_ATTEMPTS_ALL_MAX = 50_000
"""Most attempts that the picture of a pipeline shows of all its jobs; a job beyond them shows its last one."""

SHOWN_CHARACTERS_MAX = 4 * 1024 * 1024
"""Most characters of reasons and progress that the picture of a pipeline shows before it cuts each of them."""

SHORT_CHARACTERS_MAX = 200
"""Longest of them from there on."""

HELLO_ARTIFACTS_MAX = 1_000
"""Most artifacts that an agent names as it introduces itself; the rest it says once it is heard."""

BATCH_ARTIFACTS_MAX = 10_000
"""Most artifacts of several attempts that travel together."""

BATCH_BYTES_MAX = 2 * 1024 * 1024
"""About the most bytes that a message of a list has, if one item is not longer by itself."""

KEPT_FOLDERS_MAX = 50
"""Most folders of attempts that did not succeed that a node keeps for people."""

KEPT_PATH_CHARACTERS_MAX = 4_096
"""Longest path of such a folder: the longest that the kernel takes."""

SENTENCE_CHARACTERS_MAX = 20_000
"""Longest sentence of a reason; what is longer is cut in its middle."""

PROGRESS_CHARACTERS_MAX = 4_096
"""Longest text of a job about its own progress; what is longer is cut in its middle."""


def duration_problem(seconds: float) -> str:
    """Say why `seconds` is no duration; empty when it is one. The words follow the value."""
    if not math.isfinite(seconds) or seconds < 0:
        return "is not allowed; it has to be a number that is 0 or more"
    if seconds > DURATION_SECONDS_MAX:
        return f"is longer than ten years; write {DURATION_SECONDS_MAX:.0f}s (3650d) or less"
    return ""


def count_problem(count: float, most: float) -> str:
    """Say why `count` is no number from 0 to `most`; empty when it is. The words follow the value."""
    if math.isfinite(count) and 0 <= count <= most:
        return ""
    return f"is not allowed; it has to be a number from 0 to {most:.0f}"


def cut(text: str, most: int) -> str:
    """Return `text`, or its beginning and its end with what was left out between them.

    What no message can carry (half of a surrogate pair, as in the name of a file that is not
    UTF-8) is written as an escape.
    """
    if len(text) > most:
        mark = f" … {len(text) - most} characters left out … "
        half = (most - len(mark)) // 2
        text = f"{text[:half]}{mark}{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode()
