"""What files say does nothing on the page, in figures, tables, logs and on the terminal."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import socket
import subprocess
import sys
import unicodedata
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from cli_tools import ok
from reports import Page, make_analysis, make_study

from gmrm_gpu.config import PhaseConfig
from gmrm_gpu.errors import GmrmError, InputError, printable
from gmrm_gpu.frames import Acquisition, ArrayMovie
from gmrm_gpu.live.page import server
from gmrm_gpu.report import html, write_report
from gmrm_gpu.results import inert, write_csv

EVIL = "<script>alert(1)</script>\"'>&{{ 7*7 }}$\\frac{$ =cmd|a!A1 \x1b[2J\u202efit\u2066\x00\x07"
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def unseen(text: str) -> list[str]:
    return [c for c in text if c not in "\n\r" and unicodedata.category(c) in UNSEEN]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("movie.tif", "movie.tif"),
        ("Bewegung µm 動画 ½", "Bewegung µm 動画 ½"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),  # Persian, with the mark that it needs
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("a\u202eb\u2066c\u200f", r"a\u202eb\u2066c\u200f"),
        ("\x9b31m\x7f\xad\ufeff\u2028", r"\x9b31m\x7f\xad\ufeff\u2028"),
        ("\udcff", r"\udcff"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_errors_and_movies_are_printable() -> None:
    assert str(InputError("a\x1b[31m\nb")) == r"a\x1b[31m\nb"
    assert not unseen(str(GmrmError(EVIL)))
    known = Acquisition(detector=EVIL, notes=(EVIL,))
    movie = ArrayMovie(np.zeros((1, 2, 2)), name=EVIL, acquisition=known)
    told = (movie.name, repr(movie), str(movie.acquisition.detector), *movie.acquisition.sentences)
    assert not [text for text in told if unseen(text)]


def evil_study():
    study = make_study()
    movie = dataclasses.replace(study.movie, name=EVIL)
    return dataclasses.replace(study, movie=movie, provenance={"command": EVIL, "warnings": [EVIL], "device": EVIL})


def test_the_page_escapes_all_that_came_from_a_file() -> None:
    text = html.render(evil_study(), {})
    page = Page(text)
    assert "script" not in page.tags
    assert "<script" not in text
    assert "{{ 7*7 }}" in page.text
    assert not unseen(text)
    assert r"\x1b[2J\u202efit" in page.text


def test_figures_of_odd_names_are_drawn_and_well_formed(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = ("anode", "<b>&\x1b[2J\u202e$\\frac{$", "li")
    result = make_analysis()
    config = dataclasses.replace(result.config, phases=PhaseConfig(",".join(names)))
    movie = dataclasses.replace(result.movie, name=EVIL)
    write_report(dataclasses.replace(result, config=config, movie=movie), tmp_path)
    pictures = list(tmp_path.glob("figures/*.svg"))
    assert pictures
    for picture in pictures:
        root = ElementTree.fromstring(picture.read_text("utf-8"))  # what is not well formed does not parse
        assert not [node.tag for node in root.iter() if node.tag.endswith("script")]
        assert not unseen("".join(root.itertext()).replace("\t", ""))
    assert "script" not in Page((tmp_path / "report.html").read_text("utf-8")).tags


FORMULAS = ["=cmd|'/c calc'!A1", "+1+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1"]


@pytest.mark.parametrize("text", [*FORMULAS, "plain", "µm", "a=b"])
def test_no_cell_is_a_formula(tmp_path: Path, text: str) -> None:
    write_csv(tmp_path / "a.csv", {"name": [text], text: [-1.5]}, 1)
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        head, row = csv.reader(file)
    assert head[1] == row[0] == inert(text)
    assert row[0][0] not in "=+-@\t\r"
    assert row[1] == "-1.5"  # a number stays one
    assert text.startswith(tuple("=+-@\t\r")) or row[0] == text


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address of this computer")
def test_the_live_page_is_for_this_computer_alone() -> None:
    settings = {"shape": (4, 4), "foreground": 1, "unit": "px", "factor": 1.0}
    with closing(server.LivePage(title=EVIL, phase_names=("a", EVIL), **settings)) as page:
        assert page._server.server_address[0] == server.ADDRESS == "127.0.0.1"
        assert page.url.startswith("http://127.0.0.1:")
        with pytest.raises(OSError):  # another address of this computer
            socket.create_connection(("127.0.0.2", page.port), timeout=1)
        request = f"GET /events?token={page.token} HTTP/1.0\r\nHost: localhost\r\n\r\n"
        with socket.create_connection(("127.0.0.1", page.port), timeout=5) as asked:
            asked.sendall(request.encode())
            stream = asked.makefile("rb")
            line = next(line for line in stream if line.startswith(b"data:"))
            stream.close()
        told = json.loads(line.partition(b":")[2])
        assert [told["title"], told["phases"][1]["name"]] == [printable(EVIL)] * 2
        assert not unseen(line.decode())


def test_nothing_written_is_named_with_escape_codes(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a\x1b[31m\u202e.npy", np.random.default_rng(1).integers(0, 255, (3, 16, 16)).astype(np.uint8))
    ok("thin", "a\x1b[31m\u202e.npy", "--rate", "0.5")
    assert Path("a_[31m__thin.npz").exists()
    said = capsys.readouterr()
    assert not unseen(said.out + said.err)


def test_a_name_that_the_terminal_lacks_letters_for_costs_no_work(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + "/動画".encode() + b"\xff"
    os.mkdir(folder)
    np.save(tmp_path / "a.npy", np.random.default_rng(1).integers(0, 255, (3, 16, 16)).astype(np.uint8))
    command = [sys.executable, "-m", "gmrm_gpu", "thin", "a.npy", "--rate", "0.5", "--out", folder + b"/b.npz"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert os.path.exists(folder + b"/b.npz")
    assert rb"\u52d5\u753b\udcff" in done.stdout
