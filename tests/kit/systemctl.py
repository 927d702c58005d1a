"""Stands in for `systemctl` where no systemd runs: starts and ends what the units of /etc/systemd/system say.

A program in a folder of a host's PATH, of the standard library alone. It knows what our units use: `ExecStart`, `User`,
`AmbientCapabilities`, `StateDirectory`, `RuntimeDirectory` and `KillMode`. It watches nothing, so what `Restart`
says is not carried out. `boot` starts what is enabled, as a machine does.
"""

import configparser
import os
import pwd
import select
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

UNITS = Path("/etc/systemd/system")
RUNNING = UNITS / "running"
"""What this program keeps of its own: the process of each unit, and what it says."""
ENABLED = RUNNING / "enabled"
STOP_SECONDS = 30


def _unit(name: str) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    if not parser.read(UNITS / f"{name}.service"):
        sys.exit(f"Unit {name}.service not found.")
    return dict(parser["Service"])


def _runtime(unit: dict[str, str]) -> list[tuple[Path, str]]:
    name = unit.get("RuntimeDirectory")
    return [(Path("/run", name), "0755")] if name else []


def _as(unit: dict[str, str]) -> list[str]:
    """Words that start a program as the unit's user, with the capabilities that it keeps."""
    user = unit["User"]
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
    kept = unit.get("AmbientCapabilities", "").lower().split()
    if kept:
        given = ",".join(f"+{word.removeprefix('cap_')}" for word in kept)
        words += [f"--inh-caps={given}", f"--ambient-caps={given}"]
    if unit.get("NoNewPrivileges") == "yes":
        words.append("--no-new-privs")
    return words


def start(name: str) -> None:
    """Start a unit's program as its user."""
    unit = _unit(name)
    user = pwd.getpwnam(unit["User"])
    folder = Path("/var/lib") / unit["StateDirectory"]
    for made, mode in ((folder, unit["StateDirectoryMode"]), *_runtime(unit)):
        made.mkdir(parents=True, exist_ok=True)
        made.chmod(int(mode, 8))
        shutil.chown(made, user.pw_uid, user.pw_gid)
    RUNNING.mkdir(exist_ok=True)
    with (RUNNING / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [*_as(unit), *shlex.split(unit["ExecStart"])],
            cwd="/",
            env={
                "HOME": user.pw_dir,
                "LANG": "C.UTF-8",
                "LOGNAME": user.pw_name,
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "USER": user.pw_name,
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (RUNNING / name).write_text(str(process.pid))


def stop(name: str) -> None:
    """End a unit as its `KillMode` says: its first process alone, or its group with it."""
    record = RUNNING / name
    if not record.exists():
        return
    pid = int(record.read_text())
    record.unlink()
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    if _unit(name).get("KillMode") == "process":
        os.kill(pid, signal.SIGTERM)
    else:
        os.killpg(pid, signal.SIGTERM)
    if not select.select([watched], [], [], STOP_SECONDS)[0]:
        sys.exit(f"{name} did not end within {STOP_SECONDS} s of SIGTERM")


def enable(name: str) -> None:
    """Remember to start a unit at each start of the machine."""
    ENABLED.mkdir(parents=True, exist_ok=True)
    (ENABLED / name).touch()


def main(*words: str) -> None:
    """Do what the words say, as systemctl would."""
    names = [word for word in words[1:] if not word.startswith("--")]
    match words[0]:
        case "daemon-reload":
            pass
        case "boot":
            for enabled in sorted(ENABLED.iterdir()):
                start(enabled.name)
        case "enable":
            for name in names:
                enable(name)
                if "--now" in words:
                    start(name)
        case "restart":
            for name in names:
                stop(name)
                start(name)
        case other:
            sys.exit(f"systemctl {other} is not played here")


if __name__ == "__main__":
    main(*sys.argv[1:])
