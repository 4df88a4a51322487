"""Movies cut short and with flipped bits, in every format: refused in one line, or read with all frames."""

from __future__ import annotations

import json
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
