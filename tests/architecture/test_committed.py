"""What may be committed: nothing that only holds on one machine or in one network."""

import re

from tests.kit.tree import ROOT, text, tracked

# Folders of one machine or one person.
PLACES = re.compile(r"(?<![\w.~}\])-])/(?:home|root|Users|work|workspace)/\w")
# Put together from pieces, or this file would find itself.
REGISTRIES = re.compile(
    "|".join(
        [
            r"pypi\." + "org",
            r"files\.python" + "hosted",
            r"registry\.npm" + "js",
            '"resolved"' + ': "http',
            "registry" + ' *= *"?http',
        ]
    )
)
# Settings that choose a registry. Source code may know their names, since jobs and machines have
# them; files that configure, lock or install may not.
CHOICES = re.compile("|".join(["index" + "-url", "find" + "-links"]))


def _lines(pattern: re.Pattern[str], *, source_too: bool = True) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()[:100]}"
        for path in tracked()
        if source_too or path.suffix != ".py"
        for number, line in enumerate(text(path).splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_path_of_one_machine() -> None:
    assert _lines(PLACES) == []


def test_no_address_of_a_registry() -> None:
    # The machine that installs packages decides where they come from.
    assert _lines(REGISTRIES) == []
    assert _lines(CHOICES, source_too=False) == []


def test_no_lock_that_embeds_addresses() -> None:
    assert not tracked("uv.lock", "**/uv.lock")
    # npm leaves them out with --omit-lockfile-registry-resolved.
    for lock in tracked("**/package-lock.json"):
        assert "resolved" not in lock.read_text(), lock


def test_scripts_can_be_run() -> None:
    for name in (".ci/packages", ".ci/run", ".ci/system", ".ci/wheels"):
        assert (ROOT / name).stat().st_mode & 0o100, f"{name} is not executable"
