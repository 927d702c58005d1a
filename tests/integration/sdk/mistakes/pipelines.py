"""Mistakes in the names of pipelines, jobs, ports and artifacts."""

from tests.integration.sdk.mistakes.mistake import Mistake

UNKNOWN = tuple(
    (words, 1, "pipeline", "'nonsense'", "`shoal status` lists")
    for words in (
        "status nonsense", "status --watch nonsense", "logs nonsense", "logs -f nonsense/a",
        "artifacts nonsense", "get nonsense", "cancel nonsense", "cancel {ended} nonsense",
        "finish nonsense", "finish {ended} nonsense", "scale nonsense a=2", "explain nonsense/a",
        "events nonsense", "tap nonsense a.o", "record nonsense a.o -o f", "send nonsense a.o x",
        "graph nonsense",
    )
)  # fmt: skip
"""A pipeline that there is not, with every command that takes one."""

SEVERAL = tuple(
    (words, 1, "2 pipelines begin with", "'twin", "`latest`")
    for words in (
        "status twin", "logs twin-", "artifacts twin/a", "get twin", "cancel twin", "finish twin",
        "scale twin a=2", "explain twin/a", "events twin", "tap twin a.o", "record twin a.o -o f",
        "send twin a.o x", "graph twin",
    )
)  # fmt: skip
"""A beginning that two pipelines have: never one of them by chance."""

NAMES = (
    ("status endde", 1, "pipeline", "'endde'", "did you mean '{ended}'?"),
    ("status Ended", 1, "pipeline", "'Ended'", "use a lower-case letter"),
    ("status a/b/c", 1, "pipeline", "'a/b/c'", "write pipelines/ID"),
    ("logs a/b/c", 1, "job", "'a/b/c'", "write pipelines/P/jobs/J"),
    ("explain {ended}", 1, "whole pipeline", "'{ended}'", "{ended}/JOB"),
    ("explain {stuck}/detector", 1, "'detector'", "2 replicas", "{stuck}/detector-0, {stuck}/detector-1"),
    ("--namespace other status latest", 2, "option", "--namespace", "shoal --help"),
    ("status --namespace other latest", 1, "namespace", "'other'", "shoal run -- echo hello"),
    ("status --namespace Other latest", 1, "namespace", "'Other'", "use a lower-case letter"),
)  # fmt: skip
"""Names that are none, or name too much."""

JOBS = (
    *(
        (words, 1, "has no job", "'camra'", "did you mean 'camera'?")
        for words in (
            "logs {stuck}/camra", "artifacts {stuck}/camra", "get {stuck}/camra", "explain {stuck}/camra",
            "scale {stuck} camra=2", "tap {stuck} camra.frames", "record {stuck} camra.frames -o f",
        )
    ),
    ("tap {stuck} camera", 1, "port", "'camera'", "camera.frames"),
    ("tap {stuck} camera.frmaes", 1, "output", "'frmaes'", "frames"),
    ("record {stuck} camera.frmaes -o f", 1, "output", "'frmaes'", "did you mean 'frames'?"),
    ("record {stuck} camera.a.b -o f", 1, "port", "'camera.a.b'", "camera.frames"),
    ("send {stuck} camera.frames x", 1, "fed by hand", "'camera'", "`local: true`"),
    ("send {stuck} nope.frames x", 1, "has no job", "'nope'", "what can be fed there"),
    ("scale {ended} ended=2", 1, "ended", "{ended}", "submit it again"),
    ("scale {stuck} detector=0", 1, "replicas", "0 replicas", "at least 1"),
    ("scale {stuck} camera=2", 1, "camera", "cannot be scaled", "scale the jobs behind it"),
)  # fmt: skip
"""Jobs and ports that a pipeline does not have, or that cannot be used so."""

ENDED = (
    ("cancel {ended}", 0, "{ended}", "succeeded before", "nothing is cancelled"),
    ("cancel {failed}", 0, "{failed}", "failed before", "nothing is cancelled"),
    ("finish {ended}", 0, "{ended}", "succeeded before", "nothing is finished"),
    ("logs --attempt 9 {ended}", 1, "attempt", "9", "--attempt 1 to 1"),
    ("logs --attempt 2 {stuck}", 1, "attempt", "2", "none has begun"),
    ("logs --attempt 9 --save x {ended}", 1, "attempt", "9", "--attempt 1 to 1"),
    ("artifacts {stuck}", 0, "artifacts", "{stuck}", "shoal status {stuck}"),
    ("artifacts --urls {stuck}", 0, "artifacts", "{stuck}", "shoal status {stuck}"),
    ("get {stuck}", 1, "artifacts", "{stuck}", "`shoal artifacts {stuck}`"),
    ("get {ended} '*.nope'", 1, "artifacts", "*.nope", "`shoal artifacts {ended}`"),
    ("get {ended} --attempt 1", 2, "--attempt", "one job", "PIPELINE/JOB"),
    ("get {ended}/ended --attempt 9", 1, "ended", "no attempt 9", "its attempts are 1"),
    ("get {ended} -o taken", 1, "taken/ended/results/x", "other content", "--force"),
    ("get {ended} -o blocked", 1, "blocked/ended/results/x", "is a folder", "with -o"),
    ("get {ended} -o main.py", 2, "--output", "main.py", "is a file"),
    ("events --namespace other nonsense", 1, "namespace", "'other'", "shoal run"),
)  # fmt: skip
"""What has ended, or has nothing to show."""

PIPELINES = tuple(Mistake(*row) for row in (*UNKNOWN, *SEVERAL, *NAMES, *JOBS, *ENDED))
"""All of them."""
