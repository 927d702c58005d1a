"""The filter of system calls: what it answers by a second implementation, and what the kernel does with it."""

import errno
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.sandbox import seccomp
from tests.unit.sandbox.classic_bpf import answer

X86, ARM, I386 = 0xC000003E, 0xC00000B7, 0x40000003
LET, END = 0x7FFF0000, 0x80000000
REFUSED, ABSENT, NO_FAMILY = (
    0x50000 | errno.EPERM,
    0x50000 | errno.ENOSYS,
    0x50000 | errno.EAFNOSUPPORT,
)
NEW_USER, NEW_TIME, FILES, VM = 0x10000000, 0x80, 0x400, 0x100

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", X86), ("aarch64", ARM)])
@pytest.mark.parametrize(
    ("call", "first", "expected"),
    [
        ("mount", 0, REFUSED),
        ("setns", 0, REFUSED),
        ("bpf", 0, REFUSED),
        ("keyctl", 0, REFUSED),
        ("clone3", 0, ABSENT),
        ("io_uring_setup", 0, ABSENT),
        ("clone", NEW_USER | 17, REFUSED),
        ("clone", VM | FILES | 17, LET),
        ("unshare", NEW_USER, REFUSED),
        ("unshare", NEW_TIME, REFUSED),
        ("unshare", FILES, LET),
        ("socket", 1, LET),
        ("socket", 2, LET),
        ("socket", 29, LET),
        ("socket", 40, NO_FAMILY),
        ("execve", 0, LET),
        ("ptrace", 0, LET),
        ("openat", 0, LET),
    ],
)
def test_answer_to_a_call(
    machine: str, architecture: int, call: str, first: int, expected: int
) -> None:
    number = _numbers(machine)[call]
    assert answer(seccomp.program(machine), architecture, number, first) == expected


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    """A wrong number would let one call through and refuse another one."""
    numbers = _numbers(machine)
    architecture = X86 if machine == "x86_64" else ARM
    program = seccomp.program(machine)
    refused = {
        name
        for name, number in numbers.items()
        if answer(program, architecture, number) in {REFUSED, ABSENT}
    }
    named = {"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", *_named()}
    # What the headers of this machine are too old for, or what the machine has not.
    unknown = named - set(numbers)
    assert refused == named - unknown
    assert unknown <= {
        "open_tree_attr",
        "_sysctl",
        "create_module",
        "ioperm",
        "iopl",
        "query_module",
    }


def test_a_call_of_another_architecture_ends_the_process() -> None:
    assert answer(seccomp.program("x86_64"), I386, 4) == END
    assert answer(seccomp.program("aarch64"), X86, 1) == END


def test_a_call_of_x32_is_absent() -> None:
    assert answer(seccomp.program("x86_64"), X86, 0x40000000 | 165) == ABSENT


def test_a_machine_whose_calls_are_not_known_has_no_filter() -> None:
    with pytest.raises(
        ValueError, match="no filter of system calls for riscv64, only for x86_64, aarch64"
    ):
        seccomp.program("riscv64")


_TRY = """
import ctypes, json, os, platform, socket, subprocess, sys, threading
from edge_agent.sandbox import seccomp
libc = ctypes.CDLL(None, use_errno=True)
if sys.argv[1] == "filtered":
    libc.prctl(38, 1, 0, 0, 0)
    seccomp.install(seccomp.program(platform.machine()))
def number(answer):
    return 0 if answer >= 0 else ctypes.get_errno()
def family(which):
    try:
        socket.socket(which, socket.SOCK_STREAM).close()
    except OSError as error:
        return error.errno
    return 0
def threads():
    ran = []
    thread = threading.Thread(target=ran.append, args=(1,)); thread.start(); thread.join()
    return ran
print(json.dumps({
    "unshare": number(libc.unshare(0x10000000)),
    "io_uring": number(libc.syscall(425, 0, None)),
    "keyring": number(libc.syscall({"x86_64": 250, "aarch64": 219}[platform.machine()], 0, -3, 1)),
    "unix": family(socket.AF_UNIX),
    "vsock": family(socket.AF_VSOCK),
    "threads": threads(),
    "program": subprocess.run(["/bin/sh", "-c", "exit 7"]).returncode,
    "mode": [line.split()[1] for line in open("/proc/self/status") if line.startswith("Seccomp:")],
}))
"""


def test_the_kernel_does_what_the_filter_says() -> None:
    if platform.machine() not in HEADERS:
        pytest.skip(f"no filter for {platform.machine()}")
    free, filtered = _try("free"), _try("filtered")
    assert free["unshare"] == 0, "the machine refuses this to everybody: the test shows nothing"
    assert filtered == {
        "unshare": errno.EPERM,
        "io_uring": errno.ENOSYS,
        "keyring": errno.EPERM,
        "unix": 0,
        "vsock": errno.EAFNOSUPPORT,
        "threads": [1],
        "program": 7,
        "mode": ["2"],
    }


def test_a_filter_that_the_kernel_refuses_is_an_error() -> None:
    """Whoever starts a job must hear it, or the job would run without."""
    with pytest.raises(OSError, match="the filter of system calls cannot be set: Invalid argument"):
        seccomp.install(b"\0" * 8)


def _try(how: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", _TRY, how], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def _named() -> set[str]:
    return set(seccomp._REFUSED)


def _numbers(machine: str) -> dict[str, int]:
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"{header} is not there: install linux-libc-dev")
    found = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
    return {name: int(number) for name, number in found}
