"""The filter, run by a small interpreter of its own and, in the other tests, by the kernel."""

from __future__ import annotations

import struct

import pytest

from delta_lightning.sandbox import seccomp, syscalls

ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
MACHINES = list(syscalls.AUDIT)


def run(program: str, machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """What the filter answers: classic BPF over `struct seccomp_data`."""
    arch = syscalls.AUDIT[machine] if arch is None else arch
    data = struct.pack("<iIQ6Q", number, arch, 0, *(list(arguments) + [0] * 6)[:6])
    raw = bytes.fromhex(program)
    steps = [struct.unpack_from("<HBBI", raw, place) for place in range(0, len(raw), 8)]
    place, value = 0, 0
    while True:
        code, yes, no, constant = steps[place]
        if code == 0x20:
            (value,) = struct.unpack_from("<I", data, constant)
            place += 1
        elif code == 0x06:
            return constant
        else:
            truth = {0x15: value == constant, 0x35: value >= constant, 0x45: bool(value & constant)}[code]
            place += 1 + (yes if truth else no)


def call(machine: str, name: str, *arguments: int, alone: bool = False) -> int:
    program, number = seccomp.assemble(alone=alone, machine=machine), syscalls.number(name, machine)
    assert program is not None
    assert number is not None
    return run(program, machine, number, *arguments)


@pytest.mark.parametrize("machine", MACHINES)
def test_each_denied_call_is_denied_and_everyday_calls_are_not(machine: str) -> None:
    for alone in (False, True):
        program = seccomp.assemble(alone=alone, machine=machine)
        assert program is not None
        for name in (*seccomp.DENIED, *(seccomp.ALONE if alone else ())):
            number = syscalls.number(name, machine)
            if number is not None:
                assert run(program, machine, number) == EPERM, name
        for number in {"x86_64": (0, 1, 3, 9, 12, 202, 231, 257, 262), "aarch64": (56, 57, 62, 63, 64, 93, 94, 98, 222)}[
            machine
        ]:
            assert run(program, machine, number) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_only_threads_where_alone_and_never_namespaces(machine: str) -> None:
    thread, fork, user_namespace = 0x003D0F00, 17, 0x10000000
    assert call(machine, "clone", thread) == call(machine, "clone", fork) == ALLOW
    assert call(machine, "clone", fork | user_namespace) == call(machine, "clone", thread | user_namespace) == EPERM
    assert call(machine, "clone", thread, alone=True) == ALLOW
    assert call(machine, "clone", fork, alone=True) == EPERM
    assert call(machine, "clone3") == ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_signals_only_to_itself_where_alone(machine: str) -> None:
    for name in ("kill", "tgkill", "rt_tgsigqueueinfo"):
        assert call(machine, name, seccomp.MARKER, alone=True) == ALLOW
        for other in (0, 1, 2**32 - 1, seccomp.MARKER + 1):
            assert call(machine, name, other, alone=True) == EPERM
        assert call(machine, name, 1) == ALLOW
    assert call(machine, "prlimit64", 0, alone=True) == ALLOW
    assert call(machine, "prlimit64", 1, alone=True) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_no_signals_through_the_owner_of_a_descriptor_where_alone(machine: str) -> None:
    for command in (8, 10, 15):  # F_SETOWN, F_SETSIG, F_SETOWN_EX
        assert call(machine, "fcntl", 3, command, alone=True) == EPERM
        assert call(machine, "fcntl", 3, command) == ALLOW  # a pid namespace is around it
    assert call(machine, "fcntl", 3, 4, alone=True) == ALLOW  # F_SETFL
    for request in (0x8901, 0x8902):  # FIOSETOWN, SIOCSPGRP
        assert call(machine, "ioctl", 3, request, alone=True) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_single_operations_of_prctl_and_ioctl(machine: str) -> None:
    assert call(machine, "prctl", 1, 9) == EPERM  # PR_SET_PDEATHSIG
    assert call(machine, "prctl", 15) == ALLOW  # PR_SET_NAME
    assert call(machine, "ioctl", 0, 0x5412) == call(machine, "ioctl", 0, 0x541C) == EPERM
    assert call(machine, "ioctl", 0, 0x5401) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_other_numberings_and_unknown_calls(machine: str) -> None:
    program = seccomp.assemble(alone=False, machine=machine)
    assert program is not None
    assert run(program, machine, 0, arch=0x40000003) == KILL  # 32-bit x86
    assert run(program, machine, syscalls.NEWEST) == run(program, machine, 0x40000029) == ENOSYS  # x32's socket


def test_without_a_table_there_is_no_filter() -> None:
    assert seccomp.assemble(alone=False, machine="riscv64") is None


def test_the_tables_agree_where_the_kernel_made_them_agree() -> None:
    """Since 2019 (424, pidfd_send_signal) new calls have one number on all architectures; no number is used twice."""
    for place in (0, 1):
        numbers = [both[place] for both in syscalls.NUMBERS.values() if both[place] is not None]
        assert len(numbers) == len(set(numbers))
        assert max(numbers) < syscalls.NEWEST
    for name, (x86, arm) in syscalls.NUMBERS.items():
        if x86 is not None and x86 >= 424:
            assert x86 == arm, name
