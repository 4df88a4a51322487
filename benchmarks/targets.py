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
KEY = ("what", "scenario", "difficulty", "n_frames", "rate", "scheme", "method", "program", "n_components")
"""What tells rows apart; of two alike the later counts."""
PAPER = ("bias", "rmse", "false")
MASK_RATES = (1.0, 0.1, 0.01)
COVER = {80: (76, 84), 95: (92, 97)}


def compare(path):
    """Print a line a target."""
    growth, labels, _ = latest(path)
    for line in (*growth_lines(growth), *label_lines(labels)):
        name, value, aim, met = line
        print(f"{'met   ' if met else 'MISSED'}  {name:62s} {value:9.4g}   aim {aim}")


def markdown(path):
    """Print the tables of README.md."""
    rows = latest(path)
    print("| movies | bias | RMSE | band / `count`: assisted, smoothed | empty frames | labels right | ", end="")
    print("80 % interval covers: assisted, smoothed | `paper` at 10 %: bias, RMSE, empty frames |\n" + "|---" * 8 + "|")
    growth = {(r["scenario"], r["difficulty"], r["n_frames"], r["rate"], r["scheme"], r["method"]): r for r in rows[0]}
    for (scenario, difficulty, n_frames, *_), row in growth.items():
        if row["rate"] != 0.01 or row["scheme"] != "fixed" or row["method"] != "movie":
            continue
        cells = [f"{scenario}, {difficulty}" + (f", {n_frames} frames" if n_frames > 60 else "")]
        cells += [f"{row['smoothed_bias']:.1f} %", f"{row['smoothed_rmse']:.1f} %"]
        cells.append(f"{row['assisted_ratio']:.2f}, {row['smoothed_ratio']:.2f}")
        cells += [f"{row['smoothed_false']:.2f} %", f"{row['label_accuracy']:.4f}"]
        cells.append(f"{100 * row['assisted_cover80']:.0f} %, {100 * row['smoothed_cover80']:.0f} %")
        paper = growth.get((scenario, difficulty, n_frames, 0.1, "fixed", "paper"))
        cells.append("-" if paper is None else ", ".join(f"{paper[f'count_{key}']:.0f} %" for key in PAPER))
        print("| " + " | ".join(cells) + " |")
    programs = list(dict.fromkeys(row["program"] for row in rows[1]))
    print("\n| movies | " + " | ".join(programs) + " |\n" + "|---" * (len(programs) + 1) + "|")
    kinds = {}
    for row in rows[1]:
        kinds.setdefault((row["scenario"], row["difficulty"], row["rate"]), {})[row["program"]] = row
    for (scenario, difficulty, rate), found in kinds.items():
        shown = [f"{found[name]['label_accuracy']:.4f}" if name in found else "-" for name in programs]
        print(f"| {scenario}, {difficulty}, {100 * rate:g} % | " + " | ".join(shown) + " |")
    print(
        "\n| program | components | " + " | ".join(f"{100 * r:g} %" for r in MASK_RATES) + " |\n|---|---|---|---|---|"
    )
    masks = {(row["program"], row["n_components"], row["rate"]): row for row in rows[2]}
    for name, k in dict.fromkeys((name, k) for name, k, _ in masks):
        found = [masks.get((name, k, rate)) for rate in MASK_RATES]
        shown = ["-" if row is None else f"{row['share']:.1f} %, {row['iou']:.2f}, {row['n_off']}" for row in found]
        print(f"| {name} | {k} | " + " | ".join(shown) + " |")


def latest(path):
    """Rows of growth, labels and masks; of two alike the later."""
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows = {tuple(row.get(key) for key in KEY): row for row in rows if "skipped" not in row}.values()
    return [[row for row in rows if row["what"] == what] for what in ("growth", "labels", "masks")]


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
