"""docker/: what the image promises, without building it. `docker/build.sh test` runs all tests inside the image."""

import fnmatch
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from gmrm_gpu.cli import build_parser

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions of each stage with those of the stages it starts from; the last stage is ``"image"``."""
    text = re.sub(r"\\\n", " ", re.sub(r"^ *#.*\n", "", (FOLDER / "Dockerfile").read_text("utf-8"), flags=re.M))
    found: dict[str, list[tuple[str, str]]] = {}
    name = "before"
    for line in filter(None, map(str.strip, text.splitlines())):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            parent, _, name = rest.partition(" AS ")
            name = name or "image"
            found[name] = list(found.get(parent, []))
        found.setdefault(name, []).append((word, rest))
    return found


STAGES = stages()


def last(stage: str, word: str) -> str:
    return [rest for found, rest in STAGES[stage] if found == word][-1]


def test_the_image_runs_the_program_as_nobody_special():
    assert last("image", "USER") == "1000:1000"
    assert json.loads(last("image", "ENTRYPOINT"))[0] in PROJECT["scripts"]
    assert last("image", "VOLUME") == last("image", "WORKDIR") == "/data"
    assert last("test", "USER") == "1000:1000"
    assert json.loads(last("test", "ENTRYPOINT")) == ["pytest"]


def test_base_and_extra_are_arguments_and_the_extras_exist():
    assert ("ARG", "BASE=python:3.11-slim-bookworm") in STAGES["before"]
    assert ("ARG", 'EXTRA=""') in STAGES["build"]
    text = (FOLDER / "Dockerfile").read_text("utf-8")
    extras = {*re.findall(r"/src\[(\w+)", text), *re.findall(r"EXTRA=(\w+)", text)}
    extras |= set(re.findall(r"^    (cuda\d+) \| (cuda\d+)\)", (FOLDER / "build.sh").read_text("utf-8"), re.M)[0])
    assert {"all", "test", "cuda12", "cuda13"} == extras
    assert extras <= set(PROJECT["optional-dependencies"])


def test_the_builder_is_given_what_is_copied_and_nothing_else():
    lines = (ROOT / ".dockerignore").read_text("utf-8").split("\n")
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    copied = {
        source
        for stage in STAGES.values()
        for word, rest in stage
        if word == "COPY" and "--from" not in rest
        for source in [part for part in rest.split() if not part.startswith("--")][:-1]
    }
    assert copied == {".", "LICENSE", "README.md", "gmrm_gpu", "pyproject.toml"}
    assert copied - {"."} <= kept
    assert [name for name in kept if not (ROOT / name).exists()] == []
    for name in (".venv", ".git", "movie.tif", "demo", "out"):
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in kept)


def test_a_scheduler_and_two_workers_that_nobody_else_reaches():
    services = COMPOSE["services"]
    assert set(services) == {"scheduler", "worker", "study"}
    assert services["worker"]["deploy"]["replicas"] == 2
    assert COMPOSE["networks"]["cluster"]["internal"]
    for service in services.values():
        assert service["image"] == "${IMAGE:-gmrm-gpu}"
        assert service["user"] == "${USER_ID:-1000:1000}"
        assert service["networks"] == ["cluster"]
        assert service["cap_drop"] == ["ALL"]
        assert "ports" not in service
    for name in ("worker", "study"):
        assert "${MOVIES:-../data}:/movies:ro" in services[name]["volumes"]
    assert not any("/data" in volume.split(":")[-1] for volume in services["worker"]["volumes"])


def test_the_study_of_the_compose_file_is_a_command_of_the_program():
    program, *arguments = COMPOSE["services"]["study"]["entrypoint"]
    assert program in PROJECT["scripts"]
    args = build_parser().parse_args([*arguments, "/movies/movie.tif", "--out", "run1"])
    assert args.scheduler in COMPOSE["services"]["worker"]["command"]


def test_the_recipe_is_a_script():
    path = FOLDER / "build.sh"
    assert path.stat().st_mode & 0o100
    subprocess.run(["bash", "-n", path], check=True)
    done = subprocess.run([path, "nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "docker/build.sh cluster" in done.stderr
