"""Turn a pytest-benchmark JSON into lines for results/: python record.py out.json >> results/cpu.jsonl."""

from __future__ import annotations

import json
import subprocess
import sys


def main(path: str) -> None:
    """Print one JSON line a benchmark: name, median seconds, its figures, commit, processor, date."""
    with open(path, encoding="utf-8") as file:
        run = json.load(file)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    for benchmark in run["benchmarks"]:
        line = {
            "benchmark": benchmark["name"],
            "median_s": round(benchmark["stats"]["median"], 6),
            "rounds": benchmark["stats"]["rounds"],
            **{key: round(value, 4) for key, value in benchmark["extra_info"].items()},
            "commit": commit.stdout.strip(),
            "processor": run["machine_info"]["cpu"]["brand_raw"],
            "device": "one CPU core",
            "python": run["machine_info"]["python_version"],
            "date": run["datetime"][:10],
        }
        print(json.dumps(line))


if __name__ == "__main__":
    main(sys.argv[1])
