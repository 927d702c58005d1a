"""A package whose build tries to get out: a build backend in the bundle that does what it is not to do."""

import base64
import json
from collections.abc import Mapping

BACKEND = """
import base64, hashlib, json, os, socket, subprocess, sys, zipfile

TARGETS = json.loads(base64.b64decode("@TARGETS@"))
SAID = {}


def attempt(name, what):
    try:
        SAID[name] = repr(what())
    except BaseException as error:
        SAID[name] = "refused: %s" % type(error).__name__


def write(path):
    with open(path, "a") as file:
        file.write("evil")
    return "written"


def attacks():
    for path in TARGETS["read"]:
        attempt("read " + path, lambda: open(path, "rb").read(1))
    for path in TARGETS["list"]:
        attempt("list " + path, lambda: os.listdir(path))
    for path in TARGETS["write"]:
        attempt("write " + path, lambda: write(path))
    for path in TARGETS["dial"]:
        attempt("dial " + path, lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(path))
    agent = TARGETS["agent"]
    attempt("environ of the agent", lambda: open("/proc/%d/environ" % agent, "rb").read(1))
    attempt("memory of the agent", lambda: open("/proc/%d/mem" % agent, "rb").fileno())
    attempt("kill the agent", lambda: os.kill(agent, 0))
    door = os.getppid()
    while door > 1 and os.stat("/proc/%d" % door).st_uid == os.getuid():
        door = int(open("/proc/%d/stat" % door).read().rpartition(")")[2].split()[1])
    attempt("kill the door", lambda: os.kill(door, 0) if door > 1 else 1 / 0)
    attempt("become root", lambda: os.setuid(0))
    attempt("device", lambda: os.mknod("device", 0o20600, os.makedev(1, 3)))
    attempt("unshare", lambda: subprocess.run(["mount", "-t", "tmpfs", "none", "/mnt"], check=True))
    SAID["groups"] = open("/proc/self/cgroup").read().split()
    SAID["uid"] = os.getuid()
    SAID["environ"] = dict(os.environ)
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    SAID["no_new_privs"] = status["NoNewPrivs"].strip()
    SAID["capabilities"] = status["CapEff"].strip()
    # A daemon that changes its group, its session, its parent and its environment.
    if os.fork() == 0:
        os.setsid()
        for number in range(3):
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        os.closerange(3, 256)
        if os.fork() == 0:
            os.execve("/bin/sleep", ["sleep", TARGETS["sleep"]], {})
        os._exit(0)
    for name, target in TARGETS["links"].items():
        attempt("link " + name, lambda: os.symlink(target, os.path.join(TARGETS["place"](), name)))
    return SAID


def place():
    # The environment that is built, as the folder of the bundle's copy says it.
    return os.path.dirname(os.getcwd())


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    TARGETS["place"] = place
    said = attacks()
    name = "evil-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        wheel.writestr("evil.py", "SAID = %r\\n" % json.dumps(said))
        wheel.writestr("evil-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: evil\\nVersion: 1.0\\n")
        said = ["Wheel-Version: 1.0", "Generator: e", "Root-Is-Purelib: true", "Tag: py3-none-any", ""]
        wheel.writestr("evil-1.0.dist-info/WHEEL", "\\n".join(said))
        wheel.writestr("evil-1.0.dist-info/RECORD", "")
    return name
"""


def evil_package(targets: Mapping[str, object]) -> dict[str, str]:
    """Files of the package, for a bundle; the module `evil` of its build has `SAID`, JSON of what it could do.

    `targets` are paths to `read`, `list`, `write` and `dial`, the process `agent`, `links` (name in the environment
    to target) and `sleep`, the word of the daemon that stays. What is left out is not tried.
    """
    kinds: dict[str, object] = {kind: [] for kind in ("read", "list", "write", "dial")}
    words = base64.b64encode(json.dumps({**kinds, "links": {}, **targets}).encode()).decode()
    return {
        "evil_backend.py": BACKEND.replace("@TARGETS@", words),
        "pyproject.toml": '[project]\nname = "evil"\nversion = "1.0"\n'
        '[build-system]\nrequires = []\nbuild-backend = "evil_backend"\nbackend-path = ["."]\n',
    }
