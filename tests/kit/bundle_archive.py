"""Bundles and wheels made on the spot."""

import base64
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping


def tar_of(files: Mapping[str, bytes | str], modes: Mapping[str, int] | None = None) -> bytes:
    """Return a tar with these files; a name with a slash at its end is a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name.rstrip("/"))
            member.mode = (modes or {}).get(name, 0o755 if name.endswith("/") else 0o644)
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
            else:
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def wheel_of(
    name: str, version: str, code: str, more: Mapping[str, str] | None = None
) -> tuple[str, bytes]:
    """Return the file name and the bytes of a wheel with one module, and more files by their paths."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code,
        **(more or {}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_hash(text)},{len(text)}\n" for path, text in files.items())
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)
    return f"{name}-{version}-py3-none-any.whl", out.getvalue()


BACKEND = """
import base64, hashlib, json, os, zipfile

def _wheel(folder, files):
    info = "mine-1.0.dist-info"
    files = dict(files)
    files[info + "/METADATA"] = "Metadata-Version: 2.1\\nName: mine\\nVersion: 1.0\\n"
    files[info + "/WHEEL"] = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    record = "".join(name + ",,\\n" for name in [*files, info + "/RECORD"])
    name = "mine-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for path, text in [*files.items(), (info + "/RECORD", record)]:
            wheel.writestr(path, text)
    return name

def build_wheel(folder, settings=None, metadata=None):
    code = open("mine.py").read()
    return _wheel(folder, {"mine.py": code, "mine_built_with.json": json.dumps(dict(os.environ))})

def build_editable(folder, settings=None, metadata=None):
    return _wheel(folder, {"mine.pth": os.getcwd() + "\\n"})
"""
"""A build backend without dependencies; a wheel that it builds holds the variables of its build."""


def source_of(folder: str, code: str) -> dict[str, str]:
    """Return the files of a package `mine`, in its source, which needs nothing to be built."""
    project = (
        '[project]\nname = "mine"\nversion = "1.0"\n[build-system]\nrequires = []\n'
        'build-backend = "backend"\nbackend-path = ["."]\n'
    )
    return {
        f"{folder}/pyproject.toml": project,
        f"{folder}/backend.py": BACKEND,
        f"{folder}/mine.py": code,
    }


def _hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
