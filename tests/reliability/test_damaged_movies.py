"""Movies cut short and with flipped bits, in every format: refused in one line, or read with all frames."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import scale

pytest.importorskip("rsciio", reason="RosettaSciIO (extra em) is not installed")
pytest.importorskip("resource", reason="memory is limited on POSIX only")

MOST_S, MOST_MIB = 10.0, 400.0
DIMS = struct.pack("<3Q", 4, 5, 7)
# Format, type of the field that counts its four frames, and where that is: bytes after a mark.
COUNTS = [
    ("mrc", "<i", b"", 8),
    ("seq", "<I", b"", 572),
    *(("ser", "<I", b"", at) for at in (14, 18, 34)),
    *((kind, "<I", struct.pack("<I", 5), at) for kind, at in (("dm3", 19), ("dm4", 35))),
    *((kind, "<I", mark, at) for kind in ("avi", "mjpeg avi") for mark, at in ((b"avih", 24), (b"strh", 40))),
    *(("mp4", ">I", mark, at) for mark, at in ((b"stsz", 12), (b"stts", 12))),
    ("velox emd", "<Q", struct.pack("<2Q", 5, 7), 16),
    ("berkeley emd", "<Q", DIMS, 0),
    ("hspy", "<Q", DIMS, 0),
]


def test_damaged_movies_are_refused_in_one_line_or_read_with_all_frames(
    tmp_path: Path, counted: Callable[[str, int], None]
) -> None:
    from .damage import MAKERS

    n = scale.cases(500, 5000)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "reliability.damage", str(tmp_path), str(n)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, ""), f"while trying {lines[-1:]}"
    tried = [line for line in lines if "outcome" in line]
    wrong = [case for case in tried if case["outcome"].split(":")[0] not in ("refused", "read")]
    assert wrong == []
    assert [case for case in tried if case["seconds"] > MOST_S] == []
    assert max(lines[-1]["mib"]) < MOST_MIB
    refused = Counter(case["format"] for case in tried if case["outcome"].startswith("refused"))
    assert (len(tried), set(refused)) == (n, set(MAKERS))
    counted("damaged movies", n)


@pytest.mark.parametrize("other", [3, 5])
@pytest.mark.parametrize(("kind", "field", "mark", "at"), COUNTS, ids=lambda value: str(value))
def test_a_header_that_counts_fewer_or_more_frames_leaves_none_out_in_silence(
    tmp_path: Path, kind: str, field: str, mark: bytes, at: int, other: int
) -> None:
    from .damage import MAKERS, contents, read

    path = MAKERS[kind](tmp_path)
    data, truth = path.read_bytes(), contents(path)
    at = next(
        place + at
        for place in range(data.find(mark), len(data))
        if data.startswith(mark, place) and data[place + at :].startswith(struct.pack(field, len(truth)))
    )
    path.write_bytes(data[:at] + struct.pack(field, other) + data[at + struct.calcsize(field) :])
    outcome = read(path, kind, truth)
    assert outcome.split(":")[0] in ("read", "refused")
    assert "other pixels" not in outcome or other == 3, outcome


def test_a_file_that_libhdf5_never_finishes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gmrm_gpu.frames import child

    from .damage import MAKERS, contents, read

    path = MAKERS["hspy"](tmp_path)
    truth, data = contents(path), bytearray(path.read_bytes())
    data[2078:2245] = bytes(167)  # case 60 of its format, found by the test above
    path.write_bytes(data)
    monkeypatch.setattr(child, "PATIENCE_S", 0.5)
    assert read(path, "hspy", truth).startswith("refused: ")
