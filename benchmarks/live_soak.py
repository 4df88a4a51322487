"""Hours of a simulated stream through a whole live run: does memory grow, is every drop counted?

    python -m benchmarks.live_soak --minutes 120 --fps 25 --size 256x256 --rate 0.1
    python -m benchmarks.live_soak --frames 180000 --size 64x64 --rate 0.1      # as many frames, as fast as it goes

Frames, analysis, journal and page are those of `gmrm-gpu live simulation`. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import rounded, stamp
from gmrm_gpu.config import AnalysisConfig, CorrectionConfig, MixtureConfig
from gmrm_gpu.live.analysis import LiveAnalysis
from gmrm_gpu.live.journal import Subject, read_records
from gmrm_gpu.live.page import LivePage
from gmrm_gpu.live.run import LiveRun, Plan
from gmrm_gpu.live.sources.simulation import SimulationSource
from gmrm_gpu.live.update import LiveState


def resident_mb() -> float:
    """Memory of this process alone, MB: without the pages of files, which the system keeps or drops as it likes."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no RssAnon in /proc/self/status; this runs on Linux")


def soak(
    *,
    size: tuple[int, int],
    rate: float,
    fps: float | None,
    frames: int | None = None,
    seconds: float | None = None,
    page: bool = True,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Run for so many frames, or so long: memory, frames and drops.

    A fit takes a few MB while it runs. So memory is compared at rest, the least over a tenth of the run: settled is the
    second tenth, when buffers and caches are there, end the last. MB.
    """
    work = Path(tempfile.mkdtemp(prefix="soak")) if folder is None else folder
    config = AnalysisConfig(MixtureConfig(3), correction=CorrectionConfig(radius=5.0)).with_rate(rate)
    memory = [(0.0, resident_mb())]
    started = time.monotonic()

    def watch(frame: Any, state: Any) -> None:
        passed = time.monotonic() - started
        part = max(passed / seconds if seconds else 0.0, state.n_frames / frames if frames else 0.0)
        # A thousand looks at most: what is looked at must not grow by the looking.
        if frame is not None and part >= memory[-1][0] + 0.001:
            memory.append((part, resident_mb()))
        if seconds is not None and passed > seconds:
            run.stop()

    source = SimulationSource(size, fps)
    run = LiveRun(
        source,
        Plan("simulation", config, work / "soak.live", work / "soak", most_frames=frames),
        new_analysis=lambda arrival, source: LiveAnalysis(size, arrival.dtype, config, acquisition=source.acquisition),
        new_page=partial(_page, page),
        watch=watch,
    )
    try:
        journal = run.run()
        assert journal is not None
        records, state = read_records(journal.folder, journal.subject), run.state(ended=True)
        last = int(records["number"][-1])
    finally:
        if folder is None:
            shutil.rmtree(work)
    told = {"size": list(size), "rate": rate, "fps": fps, "wall_s": time.monotonic() - started}
    return told | _accounts(state, last) | _memory(memory)


def _page(wanted: bool, subject: Subject, run: LiveRun) -> LivePage | None:
    """The page as the command has it."""
    phases, scale = subject.config.phases, subject.scale
    names: dict[str, Any] = {"phase_names": phases.names, "foreground": phases.foreground_index}
    if not wanted:
        return None
    return LivePage(title="soak", shape=subject.shape, unit=scale.unit, factor=scale.factor, **names)


def _accounts(state: LiveState, last: int) -> dict[str, Any]:
    """Frames analysed and dropped, of those sent, and how fast."""
    return {
        "n_frames": state.n_frames,
        "n_sent": last + 1,
        "n_dropped": state.n_dropped,
        "unaccounted": last + 1 - state.n_frames - state.n_dropped,
        "latency_ms_median": state.latency_ms[0],
        "latency_ms_p95": state.latency_ms[1],
    }


def _memory(seen: list[tuple[float, float]]) -> dict[str, Any]:
    """Memory of (part of the run, MB), in tenths of the run."""
    tenths = [[mb for part, mb in seen if i <= 10 * part < i + 1 or (i == 9 and part >= 1)] for i in range(10)]
    rest = [min(tenth, default=float("nan")) for tenth in tenths]
    return {
        "resident_mb_settled": rest[1],
        "resident_mb_end": rest[9],
        "resident_mb_most": max(mb for _, mb in seen),
        "resident_mb_tenths": [round(mb, 2) for mb in rest],
        "resident_mb_tenths_median": [round(float(np.median(tenth)), 2) if tenth else None for tenth in tenths],
        "growth_percent": 100 * (rest[9] / rest[1] - 1),
    }


def main() -> None:
    """One JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--minutes", type=float, help="how long")
    add("--frames", type=int, help="or how many frames")
    add("--fps", type=float, help="frames per second (default: as fast as it goes)")
    add("--size", default="256x256")
    add("--rate", type=float, default=0.1)
    given = parser.parse_args()
    height, width = (int(n) for n in given.size.split("x"))
    seconds = None if given.minutes is None else 60 * given.minutes
    found = soak(size=(height, width), rate=given.rate, fps=given.fps, frames=given.frames, seconds=seconds)
    print(json.dumps({"benchmark": "live_soak", **rounded(found), **stamp()}))


if __name__ == "__main__":
    main()
