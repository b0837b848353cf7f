"""Runs a program under a seccomp filter, as a container may: `seccomp.py udp|gso|sync COMMAND …`.

The filter answers EPERM: with `udp` to new UDP sockets over IP, with `gso` to UDP segmentation offload, with
`sync` to fsync and fdatasync."""

import ctypes
import errno
import os
import platform
import struct
import sys

# Offsets in struct seccomp_data (linux/seccomp.h), of the low halves on a little-endian machine.
NUMBER, ARGUMENTS = 0, 16
LOAD, AND, JUMP_IF_EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06
ALLOW, DENY = 0x7FFF0000, 0x00050000 | errno.EPERM
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SOCKET, SETSOCKOPT, FSYNC, FDATASYNC = {
    "x86_64": (41, 54, 74, 75), "aarch64": (198, 208, 82, 83),
}[platform.machine()]
AF_INET, AF_INET6, SOCK_DGRAM, SOCK_TYPE_MASK = 2, 10, 2, 0xF
SOL_UDP, UDP_SEGMENT = 17, 103


def argument(number):
    return ARGUMENTS + 8 * number


def forbid(what):
    """Returns the filter's instructions: code, jump if true, jump if false, operand. A jump to the end allows the call."""
    match what:
        case "udp":
            return [
                (LOAD, 0, 0, NUMBER), (JUMP_IF_EQUAL, 0, 7, SOCKET),
                (LOAD, 0, 0, argument(1)), (AND, 0, 0, SOCK_TYPE_MASK), (JUMP_IF_EQUAL, 0, 4, SOCK_DGRAM),
                (LOAD, 0, 0, argument(0)), (JUMP_IF_EQUAL, 1, 0, AF_INET), (JUMP_IF_EQUAL, 0, 1, AF_INET6),
                (RETURN, 0, 0, DENY), (RETURN, 0, 0, ALLOW),
            ]
        case "gso":
            return [
                (LOAD, 0, 0, NUMBER), (JUMP_IF_EQUAL, 0, 5, SETSOCKOPT),
                (LOAD, 0, 0, argument(1)), (JUMP_IF_EQUAL, 0, 3, SOL_UDP),
                (LOAD, 0, 0, argument(2)), (JUMP_IF_EQUAL, 0, 1, UDP_SEGMENT),
                (RETURN, 0, 0, DENY), (RETURN, 0, 0, ALLOW),
            ]
        case "sync":
            return [
                (LOAD, 0, 0, NUMBER), (JUMP_IF_EQUAL, 1, 0, FSYNC), (JUMP_IF_EQUAL, 0, 1, FDATASYNC),
                (RETURN, 0, 0, DENY), (RETURN, 0, 0, ALLOW),
            ]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def main(what, *command):
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in forbid(what))
    program = Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), "cannot install the filter")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
