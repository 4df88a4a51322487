"""README.md: every block of commands or Python is run, or says above itself what it needs; what it names exists."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

import gmrm_gpu
from gmrm_gpu.cli import main
from gmrm_gpu.cli.parser import build_parser

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
FENCE = re.compile(r"(?:^<!-- needs: (?P<needs>[^\n]+?) -->\n+)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    needs: str | None
    line: int

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command; a line that ends in a backslash goes on in the next."""
        return [
            shlex.split(line, comments=True) for line in self.text.replace("\\\n", " ").splitlines() if line.strip()
        ]


def blocks(text: str) -> list[Block]:
    return [
        Block(m["kind"], m["text"], m["needs"], text.count("\n", 0, m.start("kind")) + 1) for m in FENCE.finditer(text)
    ]


BLOCKS = blocks(README)
SHELL = [block for block in BLOCKS if block.kind == "sh"]
RUN = [block for block in BLOCKS if block.kind in ("sh", "python") and block.needs is None]


def test_blocks_are_told_apart() -> None:
    text = "a\n```sh\nx \\\n  y # z\n```\n<!-- needs: a movie -->\n```python\n1\n```\n"
    first, second = blocks(text)
    assert first == Block("sh", "x \\\n  y # z\n", None, 2)
    assert first.commands == [["x", "y"]]
    assert (second.kind, second.needs) == ("python", "a movie")
    assert README.count("```") == 2 * len(BLOCKS)


def test_every_block_is_of_a_known_kind() -> None:
    assert {block.kind for block in BLOCKS} <= {"sh", "python", "text"}
    assert all(block.kind in ("sh", "python") for block in BLOCKS if block.needs)


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """In one folder and in the order of the page, as a reader would; Python blocks share their names."""
    pytest.importorskip("matplotlib", reason="the tutorial draws reports: pip install 'gmrm-gpu[plot]'")
    pytest.importorskip("tifffile", reason="the tutorial writes TIFF: pip install 'gmrm-gpu[tiff]'")
    assert len(RUN) >= 4
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in RUN:
        if block.kind == "python":
            exec(compile(block.text, f"README.md, line {block.line}", "exec"), names)
            continue
        for program, *arguments in block.commands:
            assert program == "gmrm-gpu", f"README.md, line {block.line}: {program} needs a mark <!-- needs: ... -->"
            assert main(arguments) == 0, f"{arguments}: {capsys.readouterr().err}"
    check_what_the_page_says_is_written(tmp_path)


def check_what_the_page_says_is_written(folder: Path) -> None:
    """Each row `command | files` of the table of files, against what the tutorial left behind."""
    rows = re.findall(r"^\| `(simulate|fit|select|plan|analyze|study|bench)` \| (.+?) \|$", README, re.M)
    places = {"simulate": "sim", "fit": "fit8", "select": "choice", "plan": "plan", "analyze": "full", "study": "study"}
    places |= {"bench": "speed"}
    assert {command for command, _ in rows} == set(places)
    for command, files in rows:
        named = {name.rstrip("/") for name in re.findall(r"`([^`]+)`", files)}
        assert named == {path.name for path in (folder / places[command]).iterdir()}, command


@pytest.mark.parametrize("block", SHELL, ids=lambda block: f"line-{block.line}")
def test_commands_are_known_to_the_parser(block: Block) -> None:
    """Also those that are not run here, so that no flag in the page can go stale."""
    make = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for program, *arguments in block.commands:
        if program == "gmrm-gpu":
            build_parser().parse_args(arguments)
        elif program == "make":
            assert set(arguments) <= make
        elif program == "python":
            assert (ROOT / arguments[0]).exists()
        else:
            assert block.needs, f"README.md, line {block.line}: what does {program} need?"


def test_extras_that_the_page_names_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {
        extra for found in re.findall(r"gmrm-gpu\[([\w,]+)\]|'\.\[([\w,]+)\]'", README) for extra in found if extra
    }
    named = {extra for group in named for extra in group.split(",")}
    assert named
    assert named <= set(project["optional-dependencies"])


def test_links_and_pictures_exist() -> None:
    links = re.findall(r"\]\(([^)#]+?)\)", README)
    local = [link for link in links if not link.startswith("http")]
    assert local
    assert [link for link in local if not (ROOT / link).exists()] == []
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert len(pictures) == 3
    for picture in (ROOT / name for name in pictures):
        assert picture.stat().st_size < 300_000
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_versions_agree() -> None:
    version = gmrm_gpu.__version__
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert sys.version_info >= (3, 11)
