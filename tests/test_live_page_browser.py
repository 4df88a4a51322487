"""The page of a live run as a real browser shows it."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import replace

import chromium
import numpy as np
import PIL.Image
import pytest
from live_pages import EVIL, STATE, H, W, frame_at, make_page

from gmrm_gpu.live.page import server
from gmrm_gpu.live.update import Alarm
from gmrm_gpu.results import FitStatus

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="needs Chromium or Chrome on the path")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.Chromium(tmp_path_factory.mktemp("chromium")) as made:
        yield made


@pytest.fixture
def tab(browser):
    """The browser, with nothing heard yet; afterwards no script or policy may have complained."""
    browser.events.clear()
    yield browser
    assert browser.complaints() == []
    browser.open("about:blank")


@pytest.fixture
def page(monkeypatch):
    monkeypatch.setattr(server, "UPDATE_S", 0.03)
    monkeypatch.setattr(server, "GRACE_S", 0.1)
    monkeypatch.setattr("gmrm_gpu.live.page.feed.STALL_S", 60.0)
    with closing(make_page(title=EVIL, phase_names=("a & b", "<i>Li</i>"), pixel_size_um=0.01)) as made:
        yield made


def words(tab, name: str) -> str:
    return tab.run(f"document.getElementById('{name}').textContent")


def settle(tab, page, index: int) -> None:
    """Wait until frame `index` is drawn."""
    tab.until(f"typeof view !== 'undefined' && view && view.index === {index}")


def test_everything_published_is_on_the_page(tab, page, tmp_path):
    tab.open(page.url)
    tab.until("document.getElementById('pill').textContent === 'WAITING FOR FRAMES'")
    assert words(tab, "what") == "<i>Li</i>, area"
    alarm = Alarm(1101, 1.0, "trend", "Frame 1101: the trend jumped by <b>9</b> grey levels.", 8.25)
    for i in range(3):
        page.publish(frame_at(i, number=1100 + i, share=0.2 + 0.025 * i, alarms=(alarm,) if i == 1 else ()), STATE)
    page.publish(None, replace(STATE, n_frames=3, n_dropped=2, visited_share=0.125, notices=(EVIL,), n_notices=61))
    settle(tab, page, 2)
    tab.until("document.getElementById('notice-count').textContent !== 'No notices'")
    assert words(tab, "title") == EVIL
    assert words(tab, "pill") == "LIVE"
    assert words(tab, "clock") == "frame 1,102 · 1 s"
    # 0.25 of 864 px; the sd of 0.01 makes a half width of 1.28155 * 8.64 = 11.07 px
    assert words(tab, "value") == "216 px"
    assert words(tab, "share") == "25 %"
    assert words(tab, "interval") == "80 % interval 205 – 227"
    assert words(tab, "what") == "<i>Li</i>, area: what is at grey level 158"
    assert tab.run("[...document.querySelectorAll('.name')].map(e => e.textContent)") == ["a & b", "<i>Li</i>"]
    tiles = tab.run("[...document.querySelectorAll('.tile')].map(e => e.innerText.split(/\\n+/).join(' '))")
    visited = f"{float(f'{100 * frame_at(2).visited_share:.2g}'):g} %"
    assert tiles == [
        f"{visited} pixels visited",
        "87.5 % of the dose saved",
        "3 frames analysed",
        "8.25 ms a frame (95 %: 14.5 ms)",
        "2 frames dropped",
        "0 frames waiting",
    ]
    assert words(tab, "alarms") == "frame 1,101, 1 s: the trend jumped by <b>9</b> grey levels."
    assert words(tab, "warning").startswith("ALARM at frame 1,101, 1 s: the trend jumped by <b>9</b>")
    assert words(tab, "notice-count") == "61 notices, latest 1"
    assert words(tab, "notices") == EVIL
    assert tab.run("document.querySelectorAll('img, b b, i i').length") == 0
    assert tab.run("document.title") == f"25 % · live · {EVIL}"
    tab.run("document.querySelector('#warning button').click()")
    assert tab.run("document.getElementById('warning').hidden")
    assert all(a.startswith((f"http://127.0.0.1:{page.port}/", "data:,")) for a in tab.requested())
    with PIL.Image.open(tab.screenshot(tmp_path / "page.png")) as picture:
        assert picture.size == (1920, 950)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 200


def pixel(tab, y: int, x: int) -> list[int]:
    """Red, green, blue of one pixel of the canvas."""
    return tab.run(f"[...document.getElementById('picture').getContext('2d').getImageData({x}, {y}, 1, 1).data]")[:3]


@pytest.mark.parametrize("dense", [False, True])
def test_pixels_have_the_colours_of_their_phases(tab, page, dense):
    frame = frame_at(0, dense=dense)
    page.publish(frame, STATE)
    tab.open(page.url)
    settle(tab, page, 0)
    tab.run("document.getElementById('dots').click(); document.getElementById('opacity').value = 100; paint()")
    (fore, back), nothing = (
        [tuple(np.argwhere(frame.labels == p)[0]) for p in (2, 1)],
        np.argwhere(frame.labels == 0)[0],
    )
    level = "view.grey[{0} * view.width + {1}]".format
    assert pixel(tab, *fore) == [0xE6, 0x9F, 0x00]
    assert pixel(tab, *back) == [tab.run(level(*back))] * 3  # the background is not tinted unless asked for
    tab.run("document.querySelector('#legend input').click()")
    assert pixel(tab, *back) == [0x00, 0x72, 0xB2]
    unvisited = pixel(tab, *nothing)
    assert unvisited == ([tab.run(level(*nothing))] * 3 if dense else [27, 34, 46])
    assert tab.run("document.getElementById('unvisited').hidden") is dense
    assert words(tab, "bar") == "50 nm"  # 36 pixels of 10 nm: the round length up to a quarter of 360 nm
    # Where there is less room the picture is smaller, and the bar of 5 pixels with it.
    box = "document.getElementById('{}').getBoundingClientRect().{}".format
    shown = f"Math.min({box('view', 'width')}, {box('view', 'height')} * {W / H})"
    before = tab.run(shown)
    tab.run("document.getElementById('view').style.flex = '0 0 400px'")
    assert tab.run(shown) < before - 50
    tab.until(f"Math.abs({box('bar', 'width')} - {shown} * {5 / W}) < 1")
    # Enlarged dots show what one pixel in a thousand would not.
    coloured = "paint(), new Uint32Array(document.getElementById('picture').getContext('2d')" + (
        f".getImageData(0, 0, {W}, {H}).data.buffer).filter(c => c === 0xff009fe6).length"
    )
    small = tab.run(coloured)
    assert small == (frame.labels == 2).sum()
    tab.run("document.getElementById('dots').click()")
    assert tab.run(coloured) > 2 * small
    said = tab.run("document.querySelectorAll('.tile')[1].innerText")
    assert ("could be saved" in said) is dense


def test_a_frame_without_foreground_says_so(tab, page):
    page.publish(frame_at(0, share=0.0, foreground=np.zeros(2, bool)), STATE)
    tab.open(page.url)
    settle(tab, page, 0)
    assert words(tab, "what") == "<i>Li</i>, area"
    assert words(tab, "interval") == "nothing stands out as foreground so far"


def test_a_reload_brings_the_history_back(tab, page):
    for i in range(40):
        page.publish(frame_at(i, share=i / 80), STATE)
    tab.open(page.url)
    settle(tab, page, 39)
    first = tab.run("JSON.stringify([bins, recent])")
    assert tab.run("bins.length") == 40
    tab.tab("Page.reload")
    time.sleep(0.2)
    settle(tab, page, 39)
    assert tab.run("JSON.stringify([bins, recent])") == first
    page.publish(frame_at(40), STATE)
    settle(tab, page, 40)
    assert tab.run("[bins.length, recent.length]") == [41, 41]


def test_stalls_lost_connections_and_the_end_are_told(tab, page, monkeypatch):
    monkeypatch.setattr("gmrm_gpu.live.page.feed.STALL_S", 0.3)
    monkeypatch.setattr(server, "BEAT_S", 0.1)
    tab.open(page.url)
    page.publish(frame_at(0), STATE)
    settle(tab, page, 0)
    tab.until("document.getElementById('pill').className === 'stalled'")
    monkeypatch.setattr("gmrm_gpu.live.page.feed.STALL_S", 60.0)
    page.publish(frame_at(1, share=math.nan, status=FitStatus.TOO_FEW), STATE)
    tab.until("document.getElementById('pill').className === 'live'")
    assert words(tab, "interval") == f"no usable fit: {FitStatus.TOO_FEW.label}"
    tab.run("document.querySelector('#legend input').click()")
    # The connection breaks, as when a tunnel is cut: said at once, and mended by itself.
    monkeypatch.setattr(server._Handler, "_refusal", lambda self: (403, "cut"))
    for connection in list(page._server._open):
        connection.shutdown(2)
    tab.until("document.getElementById('pill').textContent === 'DISCONNECTED'")
    assert "trying again" in words(tab, "said")
    tab.run("heard = tried = Date.now() - 60000")  # as if a minute had passed; it tries again every few seconds
    tab.until("document.getElementById('said').textContent.startsWith('No word from the program for 61 s')")
    monkeypatch.undo()
    tab.run("tried = 0")
    tab.until("document.getElementById('pill').className !== 'disconnected'")
    page.publish(frame_at(2), STATE)
    settle(tab, page, 2)
    assert tab.run("[...document.querySelectorAll('#legend input')].map(e => e.checked)") == [True, True]
    assert tab.run("recent.map(p => p[0])") == [0, 1, 2]
    page.end("Stopped by <b>you</b>.")
    page.close()
    tab.until("document.getElementById('pill').textContent === 'ENDED'")
    assert words(tab, "said") == "Stopped by <b>you</b>."
    tab.events.clear()  # refused connections were meant
    time.sleep(1.2)
    assert words(tab, "pill") == "ENDED"


def test_the_curve_takes_times_that_go_back_and_gaps(tab, page):
    tab.open(page.url)
    for i, (time_s, share) in enumerate([(0.0, 0.1), (5.0, math.nan), (4.0, 0.3), (None, 0.2)]):
        page.publish(frame_at(i, time_s=time_s, share=share, number=10 - i), STATE)
    settle(tab, page, 3)
    assert tab.run("axisOf(bins)") == [0, 1, "frames analysed"]
    assert tab.run("axisOf(bins.map(([i, n, t, s, d]) => [i, -n, t, s, d]))") == [1, 1, "frame"]
    assert tab.run("axisOf([[0, 0, 0, 1, 1], [1, 1, 7200, 1, 1]])") == [2, 60, "time (min)"]
    tab.run("document.getElementById('latest').click()")
    drawn = (
        "new Uint32Array(document.getElementById('curve').getContext('2d').getImageData(0, 0, 900, 200).data.buffer)"
    )
    assert tab.run(f"new Set({drawn}).size") > 10
