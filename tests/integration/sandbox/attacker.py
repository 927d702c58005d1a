"""Run as a job: tries each attack beside it in a process of its own, and prints a line of JSON for each."""

import importlib
import json
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Try all attacks, or in a process of its own the one that is named."""
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(tried(sys.argv[1])) + "\n")
        return
    for path in sorted(Path("attacks").glob("[a-z]*.py")):
        done = subprocess.run(
            [sys.executable, __file__, path.stem],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        broken = {"name": path.stem, "broken": done.stderr or f"it ended with {done.returncode}"}
        sys.stdout.write((done.stdout.strip() or json.dumps(broken)) + "\n")
        sys.stdout.flush()


def tried(name: str) -> dict[str, object]:
    """Try one attack; what is no refusal and no success breaks the test of it."""
    module = importlib.import_module(f"attacks.{name}")
    if not hasattr(module, "attack"):
        return {"name": name, "elsewhere": True}
    world = json.loads(Path("world.json").read_text())
    try:
        got = module.attack(world)
    except OSError as error:
        return {"name": name, "refused": True, "words": f"{type(error).__name__}: {error}"}
    return {"name": name, "refused": False, "words": got}


if __name__ == "__main__":
    main()
