"""What lets this machine run programs for aarch64 leaves nothing behind."""

import contextlib

import pytest

from tests.kit.emulation import FORMAT, FORMATS, aarch64_programs


def registered() -> tuple[bool, bool]:
    """Whether the kernel has formats of programs at all, and that of aarch64."""
    return (FORMATS / "register").exists(), FORMAT.exists()


def test_after_a_failure_the_kernel_is_as_it_was_before() -> None:
    before = registered()
    with pytest.raises(ZeroDivisionError), aarch64_programs():
        raise ZeroDivisionError
    assert registered() == before


def test_of_two_runs_the_last_one_undoes_it() -> None:
    before = registered()
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        first.enter_context(aarch64_programs())
        second.enter_context(aarch64_programs())
        first.close()
        assert registered() == (True, True)
    assert registered() == before
