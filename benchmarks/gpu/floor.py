"""The least time that the fit kernel's arithmetic takes, computed: instructions of its inner loop over issue slots.

Nothing here is measured. The instructions are counted in the machine code that runs: every loop over samples takes the
exponential of each component once, so a loop's length over its exponentials is the cost of a pixel and component.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

ISSUED_A_CLOCK = 128
"""Instructions of single threads that a multiprocessor starts in a clock: four schedulers, one warp of 32 each."""
DESIGN = {"exact": 161, "fast": 127}
"""Instructions a pixel and pass of the design's prototypes (K = 4, q = 5, sm_90)."""
_BRANCH, _SPECIAL, _EXP2 = 0x947, 0x308, 2
_GLOBAL_LOADS = (0x981, 0x381)  # the second up to compute capability 7.5
_INSTRUCTION = 16


@dataclass(frozen=True)
class Loop:
    """An innermost loop: its `instructions`, the `exponentials` among them, and whether it reads global memory."""

    instructions: int
    exponentials: int
    reads_global: bool


def loops(binary: bytes, kernel: str) -> list[Loop]:
    """The innermost loops with exponentials of a kernel in a cubin."""
    code = _instructions(binary, kernel)
    back = [(target, at) for at, target in _branches(code) if target <= at]
    found = {}
    for at, word in enumerate(code):
        if _is_exponential(*word):
            around = [(first, last) for first, last in back if first <= at <= last]
            if around:
                first, last = min(around, key=lambda span: span[1] - span[0])
                found[first, last] = code[first : last + 1]
    return [
        Loop(len(part), sum(_is_exponential(*w) for w in part), any(_opcode(w) in _GLOBAL_LOADS for w in part))
        for part in found.values()
    ]


def instructions_a_pixel(binary: bytes, kernel: str, n_components: int) -> float:
    """Of one pass over samples in global memory; the loops that start values are found in read shared memory.

    Several loops add up: a model too large for the registers is summed in several sweeps.

    Raises
    ------
    ValueError
        The code holds no such loop.
    """
    passes = [loop for loop in loops(binary, kernel) if loop.reads_global]
    if not passes:
        raise ValueError(f"no loop over samples was found in the code of {kernel}")
    return sum(loop.instructions * n_components / loop.exponentials for loop in passes)


def seconds_a_pixel(instructions: float, multiprocessors: int, clock_hz: float) -> float:
    """Least time of one pixel and pass on the whole GPU where every issue slot is used."""
    return instructions / (ISSUED_A_CLOCK * multiprocessors * clock_hz)


def _instructions(binary: bytes, kernel: str) -> list[tuple[int, int]]:
    """The 16-byte instructions of section ``.text.kernel`` of an ELF file, as two words each."""
    if not binary.startswith(b"\x7fELF"):
        raise ValueError("not machine code")
    (table,) = struct.unpack_from("<Q", binary, 0x28)
    size, count, names = struct.unpack_from("<HHH", binary, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", binary, table + i * size) for i in range(count)]
    wanted = f".text.{kernel}".encode() + b"\0"
    for name, _, _, _, offset, length in headers:
        place = headers[names][4] + name
        if binary[place : place + len(wanted)] == wanted:
            text = binary[offset : offset + length]
            return [struct.unpack_from("<QQ", text, i) for i in range(0, len(text), _INSTRUCTION)]
    raise ValueError(f"no code of {kernel}")


def _opcode(word: tuple[int, int]) -> int:
    return word[0] & 0xFFF


def _is_exponential(low: int, high: int) -> bool:
    return low & 0xFFF == _SPECIAL and high >> 10 & 0xF == _EXP2


def _branches(code: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(place, target) of every branch. Every kernel ends in a branch to itself, which tells the encoding.

    The distance from the next instruction stands in words of 4 bytes: from bit 34 on, or, since compute capability
    9, its low 8 bits from bit 16 on and the rest from bit 34 on.
    """
    found = [(at, _distance(*word), word[0] >> 16 & 0xFF) for at, word in enumerate(code) if _opcode(word) == _BRANCH]
    if not found:
        return []
    split = found[-1][1:] == (-1, 0xFC)
    return [(at, at + 1 + (256 * high + low if split else high) // 4) for at, high, low in found]


def _distance(low: int, high: int) -> int:
    """The signed number from bit 34 of the instruction on."""
    number = low >> 34 | (high & 0x3FFFF) << 30
    return number - (number >> 47 << 48)
