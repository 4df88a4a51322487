"""What was aimed at, beside what `accuracy.py --json` measured. Percentages of the peak area unless said otherwise."""

from __future__ import annotations

import json

from gmrm_gpu.config import ESTIMATORS

BIAS = {"easy": 0.5, "mid": 1.0, "hard": 2.0}
RMSE = {"easy": 1.2, "mid": 2.0, "hard": 3.0}
SMOOTHED_RATIO = {"easy": 0.22, "mid": 0.26, "hard": 0.34}
ASSISTED_RATIO = {0.01: 0.50, 0.05: 0.45, 0.1: 0.45}
FALSE = 0.3
LABELS = {
    "movie": {"easy": 0.998, "mid": 0.990, "hard": 0.980},
    "movie, causal": {"easy": 0.998, "mid": 0.988, "hard": 0.975},
}
KEY = ("what", "scenario", "difficulty", "n_frames", "rate", "scheme", "method", "program")
"""What tells rows apart; of two alike the later counts."""
COVER = {80: (76, 84), 95: (92, 97)}


def compare(path):
    """Print a line a target."""
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows = list({tuple(row.get(key) for key in KEY): row for row in rows}.values())
    for line in (*growth_lines([row for row in rows if row["what"] == "growth"]), *label_lines(rows)):
        name, value, aim, met = line
        print(f"{'met   ' if met else 'MISSED'}  {name:62s} {value:9.4g}   aim {aim}")


def growth_lines(rows):
    """Bias, RMSE, bands, empty frames and coverage: (name, value, aim, met)."""
    kinds = {}
    for row in rows:
        kinds.setdefault((row["scenario"], row["difficulty"], row["n_frames"]), []).append(row)
    for (scenario, difficulty, n_frames), mine in kinds.items():
        title = f"{scenario} {difficulty} {n_frames} frames: "
        movie = [row for row in mine if row["method"] == "movie"]
        worst, where = max((abs(row[f"{name}_bias"]), _where(row, name)) for row in movie for name in ESTIMATORS)
        yield _most(f"{title}largest bias ({where})", worst, BIAS[difficulty])
        false = [
            (row[f"{name}_false"], _where(row, name)) for row in movie for name in ESTIMATORS if f"{name}_false" in row
        ]
        if false:
            yield _most(f"{title}false foreground, % of the frame ({max(false)[1]})", max(false)[0], FALSE)
        fixed = {row["rate"]: row for row in movie if row["scheme"] == "fixed"}
        for rate, row in fixed.items():
            if rate in ASSISTED_RATIO and n_frames <= 60:
                yield _most(
                    f"{title}assisted band / count, {100 * rate:g} %", row["assisted_ratio"], ASSISTED_RATIO[rate]
                )
        yield from _low_rate(title, difficulty, n_frames, fixed, mine)
        yield from _stratified(title, fixed, movie)
        for row in movie:
            for name in ("assisted", "smoothed"):
                for level, (low, high) in COVER.items():
                    if row.get(f"{name}_cover{level}") is not None:
                        value = 100 * row[f"{name}_cover{level}"]
                        what = f"{title}{level} % interval covers, {_where(row, name)}"
                        yield what, value, f"{low} to {high}", low <= value <= high


def _low_rate(title, difficulty, n_frames, fixed, mine):
    if 0.01 not in fixed:
        return
    row = fixed[0.01]
    yield _most(f"{title}RMSE of smoothed, 1 %", row["smoothed_rmse"], RMSE[difficulty])
    paper = [other for other in mine if other["method"] == "paper" and other["rate"] == 0.1]
    if paper:
        yield _most(f"{title}the same against half of paper at 10 %", row["smoothed_rmse"], paper[0]["count_rmse"] / 2)
    if 0.1 in fixed and difficulty == "easy":
        yield _most(
            f"{title}band of smoothed at 1 % against count at 10 %", row["smoothed_band"], fixed[0.1]["count_band"]
        )
    aim = SMOOTHED_RATIO[difficulty] if n_frames <= 60 else 0.16 if difficulty == "easy" else None
    if aim:
        yield _most(f"{title}smoothed band / count, 1 %", row["smoothed_ratio"], aim)


def _stratified(title, fixed, movie):
    for row in movie:
        if row["scheme"] == "stratified" and row["rate"] in fixed:
            ratio = row["count_band"] / fixed[row["rate"]]["count_band"]
            yield _most(f"{title}count, stratified / fixed, {100 * row['rate']:g} %", ratio, 0.5)


def label_lines(rows):
    """Label accuracy: ours against the aims and against the best of the others."""
    kinds = {}
    for row in rows:
        if row["what"] == "labels" and "label_accuracy" in row:
            kinds.setdefault((row["scenario"], row["difficulty"], row["rate"]), {})[row["program"]] = row
    for (scenario, difficulty, rate), found in kinds.items():
        title = f"{scenario} {difficulty} {100 * rate:g} %: "
        for program, aims in LABELS.items():
            if rate == 0.01 and program in found:
                yield _least(f"{title}labels, {program}", found[program]["label_accuracy"], aims[difficulty])
        others = [row for program, row in found.items() if not program.startswith("movie")]
        for key, name in (("label_accuracy", ""), ("with_foreground", ", frames with foreground")):
            best = max(others, key=lambda row: row[key])
            yield _least(f"{title}against {best['program']}{name}", found["movie"][key], best[key])


def _where(row, name):
    return f"{name}, {100 * row['rate']:g} % {row['scheme']}"


def _most(name, value, aim):
    return name, value, f"at most {aim:.4g}", value <= aim


def _least(name, value, aim):
    return name, value, f"at least {aim:.4g}", value >= aim
