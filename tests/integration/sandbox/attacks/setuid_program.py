"""Become root by a setuid program.

Refused at: user; no_new_privs.
"""

import subprocess
from collections.abc import Mapping


def attack(world: Mapping[str, str]) -> str:
    done = subprocess.run(
        [world["setuid_cat"], world["file_of_root"]], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PermissionError(0, done.stderr.strip())
    return done.stdout
