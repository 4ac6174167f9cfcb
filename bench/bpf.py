"""The bpf(2) system call, and an assembler just large enough for the benchmark's programs.

An instruction is eight bytes: opcode, two registers, a 16-bit offset, a 32-bit number (the
kernel's Documentation/bpf/standardization/instruction-set.rst). Programs are written in Python,
a method call an instruction, with names for the places that are jumped to.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import NamedTuple, Self

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _PROG_LOAD, _PROG_TEST_RUN, _LINK_CREATE = 0, 1, 2, 5, 10, 28
_PROG_TYPE_XDP = 6
_MAP_TYPE_PERCPU_ARRAY = 6
_ATTACH_XDP = 37
_LIVE_FRAMES = 1 << 1

XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT = range(5)
MAP_LOOKUP, PRANDOM_U32, REDIRECT = 1, 7, 23
"""Numbers of the helpers that programs here call."""

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)
U8, U16, U32, U64 = 0x10, 0x08, 0x00, 0x18
"""Sizes of loads and stores."""

_OPERATIONS = {"add": 0x00, "mul": 0x20, "or": 0x40, "and": 0x50, "shift_right": 0x70}
_OPERATIONS |= {"mod": 0x90, "xor": 0xA0, "move": 0xB0}
_JUMPS = {"equal": 0x10, "greater": 0x20, "not_equal": 0x50}

_libc = ctypes.CDLL(None, use_errno=True)


class Program:
    """Instructions as they are written; ``code`` is what the kernel takes."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int, int]] = []
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    def _emit(
        self, opcode: int, target: int = 0, source: int = 0, off: int = 0, n: int = 0
    ) -> None:
        self._code.append((opcode, target, source, off, n))

    def number(self, operation: str, register: int, number: int) -> None:
        """``register = register OPERATION number``, in 32 bits; the upper half becomes 0."""
        self._emit(0x04 | _OPERATIONS[operation], register, n=number)

    def register(self, operation: str, register: int, other: int) -> None:
        """``register = register OPERATION other``, in 64 bits."""
        self._emit(0x0F | _OPERATIONS[operation], register, other)

    def add_number(self, register: int, number: int) -> None:
        """``register += number``, in 64 bits: for pointers."""
        self._emit(0x07, register, n=number)

    def big_endian(self, register: int) -> None:
        """Turns the register's 16 bits into network order."""
        self._emit(0xDC, register, n=16)

    def wide(self, register: int, number: int) -> None:
        """``register = number``, of 64 bits."""
        self._emit(0x18, register, n=number & 0xFFFFFFFF)
        self._emit(0x00, n=number >> 32)

    def map(self, register: int, descriptor: int) -> None:
        """``register`` = the map behind a descriptor."""
        self._emit(0x18, register, 1, n=descriptor)
        self._emit(0x00)

    def load(self, size: int, register: int, pointer: int, offset: int) -> None:
        """``register = *(pointer + offset)``."""
        self._emit(0x61 | size, register, pointer, offset)

    def store(self, size: int, pointer: int, offset: int, register: int) -> None:
        """``*(pointer + offset) = register``."""
        self._emit(0x63 | size, pointer, register, offset)

    def call(self, helper: int) -> None:
        """``r0 = helper(r1, ...)``; r1 to r5 are lost."""
        self._emit(0x85, n=helper)

    def jump_if(self, test: str, register: int, number: int, label: str) -> None:
        """To the label if the register's 64 bits compare so with the number."""
        self._jumps.append((len(self._code), label))
        self._emit(0x05 | _JUMPS[test], register, n=number)

    def jump_if_register(self, test: str, register: int, other: int, label: str) -> None:
        """The same for two registers."""
        self._jumps.append((len(self._code), label))
        self._emit(0x0D | _JUMPS[test], register, other)

    def label(self, name: str) -> None:
        """Names the next instruction."""
        self._labels[name] = len(self._code)

    def leave(self, action: int | None = None) -> None:
        """Ends the program with an action, or with what r0 holds."""
        if action is not None:
            self.number("move", R0, action)
        self._emit(0x95)

    def code(self) -> bytes:
        """The instructions, jumps resolved."""
        code = list(self._code)
        for at, label in self._jumps:
            opcode, target, source, _, number = code[at]
            code[at] = (opcode, target, source, self._labels[label] - at - 1, number)
        return b"".join(
            struct.pack("=BBhI", opcode, target | source << 4, offset, number & 0xFFFFFFFF)
            for opcode, target, source, offset, number in code
        )


class Frames(NamedTuple):
    """What a run of frames through a program is to be."""

    template: bytes
    batch: int = 64


def load_xdp(program: Program) -> int:
    """Loads an XDP program; its descriptor. The verifier's words come with the error."""
    code = ctypes.create_string_buffer(program.code())
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    log = ctypes.create_string_buffer(1 << 16)
    count = (len(code) - 1) // 8
    attributes = struct.pack(
        "=IIQQIIQ",
        _PROG_TYPE_XDP,
        count,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        1,
        len(log),
        ctypes.addressof(log),
    )
    try:
        return _bpf(_PROG_LOAD, attributes)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {log.value.decode()[-2000:]}") from None


def attach_xdp(program: int, index: int) -> int:
    """Attaches to an interface of the calling thread's namespace, until the link is closed."""
    return _bpf(_LINK_CREATE, struct.pack("=IIII", program, index, _ATTACH_XDP, 0))


def run_frames(program: int, frames: Frames, count: int) -> int:
    """Sends ``count`` frames through the program and where it sends them, as a driver would.

    Returns the nanoseconds of one frame, as the kernel measures: with all that its softirqs do on
    the way, without the time in which another program had the CPU, and without the making of the
    frames (some 25 ms a call). The frames are recycled: what was written into one is there when
    it comes again.
    """
    data = ctypes.create_string_buffer(frames.template, len(frames.template))
    attributes = struct.pack(
        "=IIIIQQIIIIQQIII",
        program,
        0,
        len(frames.template),
        0,
        ctypes.addressof(data),
        0,
        count,
        0,
        0,
        0,
        0,
        0,
        _LIVE_FRAMES,
        0,
        frames.batch,
    )
    buffer = ctypes.create_string_buffer(attributes, 128)
    _bpf_raw(_PROG_TEST_RUN, buffer)
    return int(struct.unpack_from("=I", buffer, 36)[0])


class PerCpuCounters:
    """An array of 64-bit numbers, one of each for every CPU."""

    def __init__(self, descriptor: int, length: int) -> None:
        self.descriptor = descriptor
        self.length = length

    @classmethod
    def create(cls, length: int) -> Self:
        """A new one, all zero."""
        attributes = struct.pack("=IIII", _MAP_TYPE_PERCPU_ARRAY, 4, 8, length)
        return cls(_bpf(_MAP_CREATE, attributes), length)

    def read(self) -> list[int]:
        """The numbers, each the sum over the CPUs."""
        key = ctypes.c_uint32()
        values = (ctypes.c_uint64 * _possible_cpus())()
        pointers = (ctypes.addressof(key), ctypes.addressof(values))
        attributes = struct.pack("=IIQQQ", self.descriptor, 0, *pointers, 0)
        found = []
        for key.value in range(self.length):
            _bpf(_MAP_LOOKUP, attributes)
            found.append(sum(values))
        return found

    def close(self) -> None:
        os.close(self.descriptor)


def _bpf(command: int, attributes: bytes) -> int:
    return _bpf_raw(command, ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128))


def _bpf_raw(command: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
    number = _SYSCALL[platform.machine()]
    result: int = _libc.syscall(number, command, buffer, len(buffer))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf command {command}: {os.strerror(code)}")
    return result


def _possible_cpus() -> int:
    with open("/sys/devices/system/cpu/possible") as file:  # noqa: PTH123
        return int(file.read().strip().split("-")[-1]) + 1
