"""Turn a pytest-benchmark JSON into lines for results/: python record.py out.json >> results/cpu.jsonl."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def commit() -> str:
    """Short name of the commit that is checked out; ``"unknown"`` in a copy without git."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def stamp() -> dict[str, str]:
    """Commit, processor, Python and date, for figures that no pytest-benchmark made."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "commit": commit(),
        "processor": names[0] if names else platform.processor(),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def rounded(figures: Any) -> Any:
    """Numbers of a nested dictionary to four places."""
    if isinstance(figures, dict):
        return {key: rounded(value) for key, value in figures.items()}
    return round(figures, 4) if isinstance(figures, float) else figures


def main(path: str) -> None:
    """Print one JSON line a benchmark: name, median seconds, its figures, commit, processor, date."""
    with open(path, encoding="utf-8") as file:
        run = json.load(file)
    for benchmark in run["benchmarks"]:
        line = {
            "benchmark": benchmark["name"],
            "median_s": round(benchmark["stats"]["median"], 6),
            "rounds": benchmark["stats"]["rounds"],
            **rounded(benchmark["extra_info"]),
            "commit": commit(),
            "processor": run["machine_info"]["cpu"]["brand_raw"],
            "device": benchmark["extra_info"].get("device", "one CPU core"),
            "python": run["machine_info"]["python_version"],
            "date": run["datetime"][:10],
        }
        print(json.dumps(line))


if __name__ == "__main__":
    main(sys.argv[1])
