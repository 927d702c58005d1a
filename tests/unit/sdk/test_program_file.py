"""The file that a command needs is named where it is certain, and nothing is said where it is not."""

import pytest

from shoal.checks.program_file import program_file


@pytest.mark.parametrize(
    ("run", "file"),
    [
        ("python main.py", "main.py"),
        ("python3.11 -u src/main.py --fast", "src/main.py"),
        ("sh -ex run.sh", "run.sh"),
        ("node server.mjs", "server.mjs"),
        ("./filter -v", "./filter"),
        ("bin/filter", "bin/filter"),
        ("python", ""),
        ("python -m counter main.py", ""),
        ("python -uc main.py", ""),
        ("python -X dev main.py", ""),
        ("python /opt/main.py", ""),
        ("python {inputs.code.path}", ""),
        ("sh -c run.sh", ""),
        ("sh -ec run.sh", ""),
        ("/usr/bin/filter x.py", ""),
        ("filter main.py", ""),
        ("cat main.py", ""),
    ],
)
def test_the_file_of_a_command(run: str, file: str) -> None:
    assert program_file(run.split()) == file
