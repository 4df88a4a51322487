"""The page of a live run: who gets in, what it says, and that no browser can hold up the analysis."""

from __future__ import annotations

import http.client
import json
import math
import socket
import struct
import threading
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from gmrm_gpu.errors import ConfigError
from gmrm_gpu.live.page import LivePage, server
from gmrm_gpu.live.page.feed import MOST_ALARMS, MOST_RECENT, Cursor, Curve, Feed
from gmrm_gpu.live.page.picture import Painter, encode, next_limits
from gmrm_gpu.live.update import Alarm, LiveFrame, LiveState
from gmrm_gpu.report import style
from gmrm_gpu.results import FitStatus, MixtureFit

H, W = 24, 36
EVIL = "</script><img src=x onerror=\"document.title='owned'\">"
STATE = LiveState(1, 0, 0, 0.1, (8.25, 14.5), (), 0, False)
ONE = np.array(0)
FIT = MixtureFit(np.full(2, 0.5), np.array([40.0, np.nan]), np.ones(2), np.zeros(0), ONE, ONE, ONE, ONE)


def frame_at(index: int, *, rate: float = 0.1, dense: bool = False, share: float = 0.25, **changes) -> LiveFrame:
    rng = np.random.default_rng(index)
    visited = rng.random((H, W)) < rate
    picture = rng.integers(10, 200, (H, W)).astype(np.float32)
    labels = np.where(visited, 1 + (picture > 120), 0).astype(np.uint8)
    values = dict.fromkeys(("share", "count", "posterior", "assisted", "share_raw"), share)
    values |= {f"{name}_sd": 0.01 for name in ("share", "count", "posterior", "assisted")}
    made = LiveFrame(
        index=index,
        number=index + 100,
        time_s=0.5 * index,
        n_samples=int(visited.sum()),
        visited_share=float(visited.mean()),
        **values,
        n_without_neighbours=0,
        fit=FIT,
        foreground=np.array([False, True]),
        status=FitStatus.CONVERGED,
        labels=labels,
        picture=picture if dense else np.where(visited, picture, np.nan).astype(np.float32),
        alarms=(),
        latency_s=0.008,
    )
    return replace(made, **changes)


def make_page(**changes) -> LivePage:
    settings = {"title": "cell 7.dm4", "shape": (H, W), "phase_names": ("background", "Li"), "foreground": 1}
    return LivePage(**{**settings, "unit": "px", "factor": float(H * W), **changes})


@pytest.fixture
def page(monkeypatch):
    monkeypatch.setattr(server, "GRACE_S", 0.05)
    with closing(make_page()) as made:
        yield made


def ask(page: LivePage, path: str, *, token: str | None = None, host: str | None = None, method: str = "GET"):
    """(status, headers, content) of one request; the token is put in unless another is given."""
    given = page.token if token is None else token
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=5)
    with closing(connection):
        connection.putrequest(method, f"{path}?token={given}" if given else path, skip_host=True)
        for name in [f"127.0.0.1:{page.port}"] if host is None else host.split("\n") if host else []:
            connection.putheader("Host", name)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()


class Listener:
    """Server-sent events, read by hand from the socket."""

    def __init__(self, page: LivePage) -> None:
        self.socket = socket.create_connection(("127.0.0.1", page.port), timeout=5)
        self.socket.sendall(f"GET /events?token={page.token} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.stream = self.socket.makefile("rb")
        self.head = b"".join(iter(self.stream.readline, b"\r\n"))

    def next(self) -> tuple[str, dict] | None:
        """(name, content) of the next event, None at the end."""
        lines = []
        while line := self.stream.readline():
            if line == b"\n" and any(text.startswith(b"data") for text in lines):
                fields = dict(text.decode().rstrip("\n").split(": ", 1) for text in lines)
                return fields["event"], json.loads(fields["data"])
            lines = [] if line == b"\n" else [*lines, line]
        return None

    def until(self, condition) -> dict:
        while True:
            name, content = self.next()
            if name == "news" and condition(content):
                return content

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


@pytest.fixture
def listener(page):
    with closing(Listener(page)) as made:
        yield made


# ---- who gets in


def test_page_holds_no_address_of_another_computer_and_only_its_own_scripts_run(page):
    status, headers, content = ask(page, "/")
    text = content.decode()
    assert status == 200
    assert "http://" not in text
    assert "https://" not in text
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    nonce = policy["script-src"].removeprefix("'nonce-").removesuffix("'")
    assert policy["style-src"] == f"'nonce-{nonce}'"
    assert text.count(f'nonce="{nonce}"') == text.count("<script") + text.count("<style") == 2
    assert nonce not in ask(page, "/")[2].decode()
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/events", "/frame", "/nothing"])
@pytest.mark.parametrize("token", ["", "wrong", "%C3%A9", "token&token="])
def test_nothing_is_told_without_the_token(page, path, token):
    status, _, content = ask(page, path, token=token + page.token if token.endswith("=") else token)
    assert status == 403
    assert b"token" in content
    assert page.token.encode() not in content


def test_tokens_are_long_and_new_each_time(page):
    with closing(make_page()) as other:
        assert other.token != page.token
        assert len(page.token) >= 22
        assert ask(other, "/", token=page.token)[0] == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("127.0.0.1", 200), ("localhost", 200), ("LOCALHOST:9999", 200)),  # another port: a tunnel
        *(("example.org", 421), ("127.0.0.1.example.org", 421), ("localhost.example.org:80", 421)),
        *(("127.0.0.1:80@example.org", 421), ("", 421), ("localhost\nexample.org", 421), ("192.168.0.5", 421)),
    ],
)
def test_only_names_of_this_computer_are_answered(page, host, status):
    assert ask(page, "/", host=host)[0] == status


def test_only_loopback_is_bound(page):
    assert page._server.server_address[0] == "127.0.0.1"
    assert page.url == f"http://127.0.0.1:{page.port}/?token={page.token}"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", page.port), timeout=1)


@pytest.mark.parametrize("path", ["/page.html", "/server.py", "/../page.html", "/..%2f..%2fpyproject.toml", "/frame/"])
def test_there_is_nothing_else(page, path):
    assert ask(page, path)[0] == 404


@pytest.mark.parametrize(("method", "status"), [("POST", 501), ("PUT", 501), ("HEAD", 501)])
def test_nothing_can_be_sent_to_it(page, method, status):
    assert ask(page, "/", method=method)[0] == status


def test_odd_requests_get_an_answer(page):
    assert ask(page, "http://[/", token="")[0] == 400
    assert ask(page, "/?" + "&".join(f"a{i}=1" for i in range(40)), token="")[0] == 400


def test_a_port_that_is_taken_is_named(page):
    with pytest.raises(ConfigError, match=f"cannot use port {page.port} .*in use.*; give another, or 0 for any"):
        make_page(port=page.port)
    with pytest.raises(ConfigError, match="cannot use port 700000"):
        make_page(port=700000)


# ---- what is told


def test_events_carry_the_setup_then_the_frames(page, listener):
    assert listener.head.startswith(b"HTTP/1.0 200")
    assert b"text/event-stream" in listener.head
    name, setup = listener.next()
    assert name == "setup"
    assert setup["title"] == "cell 7.dm4"
    assert setup["phases"][1] == {"name": "Li", "colour": style.FOREGROUND}
    assert setup["reach"] == pytest.approx(1.281552, abs=1e-6)  # standard normal, 10 % on each side
    alarm = Alarm(100, None, "trend", "The trend jumped & <b>more</b>.", 8.25)
    page.publish(frame_at(0, alarms=(alarm,)), replace(STATE, notices=(EVIL,), n_notices=7, n_dropped=3))
    news = listener.until(lambda n: n["frame"])
    assert news["frame"]["number"] == 100
    assert news["frame"]["share"] == 0.25
    assert news["frame"]["means"] == [40, None]
    assert news["recent"] == [[0, 100, 0, 0.25, 0.01]] == news["bins"]
    assert news["alarms"] == [{"number": 100, "time_s": None, "what": "trend", "text": alarm.text, "score": 8.25}]
    assert news["state"]["notices"] == [EVIL]
    assert (news["state"]["n_notices"], news["state"]["n_dropped"]) == (7, 3)
    assert news["state"]["latency_ms"] == [8.25, 14.5]


def test_colours_are_those_of_the_report():
    assert style.FOREGROUND_COLOURS[0] == server.FOREGROUND_COLOUR
    assert server.BACKGROUND_COLOURS == style.BACKGROUND_COLOURS
    names = server.phase_colours([f"phase {i}" for i in range(9)], 2)
    assert [p["colour"] for p in names].count(style.FOREGROUND) == 1
    assert names[2]["colour"] == style.FOREGROUND


def test_a_frame_without_a_fit_has_no_value(page, listener):
    page.publish(frame_at(0, share=math.nan, time_s=None, status=FitStatus.TOO_FEW), STATE)
    news = listener.until(lambda n: n["frame"])
    assert (news["frame"]["share"], news["frame"]["time_s"], news["frame"]["usable"]) == (None, None, False)
    assert news["recent"] == [[0, 100, None, None, 0.01]]


def test_news_without_a_frame_are_told(page, listener):
    page.publish(None, replace(STATE, notices=("The source is silent.",), n_notices=1))
    news = listener.until(lambda n: n["state"])
    assert news["frame"] is None
    assert news["state"]["notices"] == ["The source is silent."]


def test_a_page_opened_late_gets_the_history(page):
    for i in range(30):
        page.publish(frame_at(i, share=i / 100), STATE)
    with closing(Listener(page)) as late:
        news = late.until(lambda n: n["frame"])
    assert [p[0] for p in news["bins"]] == list(range(30))
    assert [p[3] for p in news["recent"]] == [i / 100 for i in range(30)]


def test_an_open_page_hears_of_the_end(page, listener):
    page.end("The source has ended.")
    page.end("Nobody hears this.")
    assert listener.until(lambda n: n["ended"])["message"] == "The source has ended."


def test_a_stall_is_told(monkeypatch):
    feed, clock = Feed(), [100.0]
    monkeypatch.setattr("gmrm_gpu.live.page.feed.time.monotonic", lambda: clock[0])
    for i in range(5):
        clock[0] += 2.0
        feed.publish(frame_at(i), STATE)
    for wait, stalled in ((9.9, False), (10.2, True)):  # five times the usual
        clock[0] = 110.0 + wait
        news = feed.since(Cursor())[0]
        assert (news["stalled"], news["age_s"]) == (stalled, pytest.approx(wait))
    feed.publish(None, replace(STATE, ended=True))
    assert not feed.since(Cursor())[0]["stalled"]


# ---- bounded memory


def test_every_point_of_the_curve_is_the_mean_of_its_frames():
    values = np.random.default_rng(3).random(1000)
    values[::7] = np.nan
    curve = Curve(most=16)
    for i, value in enumerate(values):
        curve.add((float(i), float(i), math.nan, float(value), 0.5))
    assert len(curve.bins) < 16
    assert curve.stride == 64
    for k, (index, _, time_s, share, sd) in enumerate(curve.bins):
        part = slice(k * 64, (k + 1) * 64)
        assert index == np.arange(1000)[part].mean()
        assert math.isnan(time_s)
        # Means of means, where frames without a value count for nothing.
        assert share == pytest.approx(np.nanmean(values[part]), abs=0.02)
        assert sd == 0.5


def test_hours_of_frames_are_told_in_bounded_messages_that_lose_nothing():
    feed, cursor, told, alarms = Feed(most_bins=64), Cursor(), [], 0
    rng = np.random.default_rng(0)
    alarm = Alarm(1, 1.0, "mean", "A jump.", 6.0)
    base = frame_at(0)
    for i in range(3000):
        feed.publish(replace(base, index=i, alarms=(alarm,) if i % 10 == 0 else ()), STATE)
        if rng.random() < 0.02:
            news, cursor = feed.since(cursor)
            told += [p[0] for p in news["recent"]]
            alarms += len(news["alarms"])
            assert news["n_alarms"] == 1 + i // 10
    news, cursor = feed.since(cursor)
    assert [*told, *(p[0] for p in news["recent"])] == list(range(3000))
    assert alarms + len(news["alarms"]) == 300
    assert feed.since(cursor)[0]["recent"] == []
    late = feed.since(Cursor())[0]
    assert (len(late["recent"]), len(late["alarms"])) == (MOST_RECENT, MOST_ALARMS)
    assert len(late["bins"]) < 64
    assert late["stride"] == 64
    assert late["bins"][0][0] == 31.5


def test_bins_told_piecewise_are_those_told_at_once():
    feed, cursor, bins = Feed(most_bins=16), Cursor(), []
    base = frame_at(0)
    for i in range(500):
        feed.publish(replace(base, index=i), STATE)
        if i % 3 == 0:
            news, cursor = feed.since(cursor)
            bins = news["bins"] if news["restart"] else bins + news["bins"]
    news, _ = feed.since(cursor)
    assert (news["bins"] if news["restart"] else bins + news["bins"]) == feed.since(Cursor())[0]["bins"]


# ---- the picture


def unpack(content: bytes):
    magic, index, height, width, step, whole = struct.unpack_from("<4s5I", content)
    low, high = struct.unpack_from("<2f", content, 24)
    assert magic == b"GMRM"
    assert len(content) == 32 + 2 * height * width
    planes = np.frombuffer(content, np.uint8, offset=32).reshape(2, height, width)
    return index, step, whole, (low, high), planes[0], planes[1]


@pytest.mark.parametrize("dense", [False, True])
def test_picture_and_labels_come_as_bytes(page, dense):
    assert ask(page, "/frame")[0] == 204
    frame = frame_at(4, dense=dense)
    page.publish(frame, STATE)
    status, headers, content = ask(page, "/frame")
    assert status == 200
    assert headers["Content-Type"] == "application/octet-stream"
    index, step, whole, (low, high), grey, labels = unpack(content)
    assert (index, step, whole) == (4, 1, dense)
    np.testing.assert_array_equal(labels, frame.labels)
    np.testing.assert_array_equal(grey == 0, np.isnan(frame.picture))
    for y, x in np.argwhere(np.isfinite(frame.picture)):
        expected = min(max((frame.picture[y, x] - low) / (high - low), 0), 1) * 254 + 1
        assert abs(grey[y, x] - expected) <= 1


def test_large_frames_are_reduced_by_blocks():
    frame = frame_at(1, rate=0.2)
    _, step, whole, _, grey, labels = unpack(encode(frame, (0.0, 254.0), most=10))
    assert (step, whole, grey.shape) == (4, 0, (6, 9))
    for r in range(6):
        for c in range(9):
            block = (slice(4 * r, 4 * r + 4), slice(4 * c, 4 * c + 4))
            seen = frame.labels[block].ravel()
            assert labels[r, c] == next((v for v in seen if v), 0)
            values = [v for v in frame.picture[block].ravel() if not math.isnan(v)]
            assert grey[r, c] == (int(sum(values) / len(values)) + 1 if values else 0)


def test_sizes_that_no_block_divides_lose_no_pixel():
    labels = np.zeros((7, 11), np.uint8)
    labels[6, 10] = 2
    frame = frame_at(0, labels=labels, picture=np.full((7, 11), 5, np.float32), n_samples=77)
    *_, grey, small = unpack(encode(frame, (0.0, 10.0), most=6))
    assert small.shape == (4, 6)
    assert small[3, 5] == 2
    assert (grey == 128).all()


def test_grey_range_is_robust_steady_and_never_empty():
    picture = np.full((50, 50), np.nan, np.float32)
    assert next_limits(None, picture) == (0.0, 1.0)
    picture[:2] = 7
    assert next_limits(None, picture) == (6.5, 7.5)
    picture[:] = np.random.default_rng(1).normal(100, 10, (50, 50))
    picture[0, 0] = 1e6  # a hot pixel
    low, high = next_limits(None, picture)
    assert 65 < low < 85
    assert 115 < high < 135
    assert next_limits((0.0, 10.0), picture) == pytest.approx((0.2 * low, 8 + 0.2 * high))


def test_a_picture_is_made_once_for_all_browsers(monkeypatch):
    calls = []
    monkeypatch.setattr("gmrm_gpu.live.page.picture.encode", lambda f, limits: calls.append(f.index) or b"bytes")
    painter, frames = Painter(), [frame_at(0), frame_at(1)]
    for frame in (frames[0], frames[0], frames[1]):
        assert painter.bytes_of(frame) == b"bytes"
    assert calls == [0, 1]


# ---- browsers that are slow, many, or gone


def test_a_browser_that_reads_nothing_holds_up_nobody(page, monkeypatch):
    monkeypatch.setattr(server._Handler, "timeout", 0.5)
    monkeypatch.setattr(server, "UPDATE_S", 0.001)
    large = replace(STATE, notices=("x" * 20_000,) * 50, n_notices=50)
    stuck = socket.socket()
    with closing(stuck):
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", page.port))
        stuck.sendall(f"GET /events?token={page.token} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        frame, slowest, gone = frame_at(0), [], False
        deadline = time.monotonic() + 8
        while not gone and time.monotonic() < deadline:
            start = time.perf_counter()
            page.publish(frame, large)
            slowest.append(time.perf_counter() - start)
            time.sleep(0.01)
            gone = len(slowest) > 10 and page._server.n_open() == 0
        assert gone, "the stuck browser still has its thread"
    assert max(slowest) < 0.4
    assert ask(page, "/frame")[0] == 200


def test_a_half_sent_request_is_given_up(page, monkeypatch):
    monkeypatch.setattr(server._Handler, "timeout", 0.2)
    with closing(socket.create_connection(("127.0.0.1", page.port), timeout=5)) as half:
        half.sendall(b"GET /?tok")
        assert half.recv(100) == b""


def test_twenty_browsers_see_the_same(page):
    listeners = [Listener(page) for _ in range(20)]
    try:
        for i in range(50):
            page.publish(frame_at(i), STATE)
        for each in listeners:
            points, news = [], {}
            while not points or points[-1] != 49:
                name, news = each.next()
                points += [p[0] for p in news["recent"]] if name == "news" else []
            assert points == list(range(50))
            assert news["frame"]["number"] == 149
    finally:
        for each in listeners:
            each.close()


def test_too_many_browsers_are_turned_away(monkeypatch):
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)
    with closing(make_page()) as page:
        listeners = [Listener(page) for _ in range(3)]
        assert ask(page, "/")[0] == 503
        listeners.pop().close()
        page.publish(frame_at(0), STATE)  # only a message shows that a browser is gone
        deadline = time.monotonic() + 5
        while (status := ask(page, "/")[0]) == 503 and time.monotonic() < deadline:
            page.publish(frame_at(0), STATE)
            time.sleep(0.1)
        assert status == 200
        for each in listeners:
            each.close()


def test_closing_says_so_and_leaves_nothing_behind():
    before = threading.active_count()
    page = make_page()
    with closing(Listener(page)) as listener:
        page.publish(frame_at(0), STATE)
        listener.until(lambda n: n["frame"])
        page.close()
        page.close()
        assert listener.until(lambda n: n["ended"])["message"] == "The program was stopped."
        while listener.next() is not None:
            pass
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() == before
    with closing(make_page(port=page.port)) as again:  # the port is free
        assert again.port == page.port


def test_a_fault_of_ours_is_shown(page, monkeypatch, capsys):
    def broken(frame):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(page._server.painter, "bytes_of", broken)
    page.publish(frame_at(0), STATE)
    with pytest.raises(http.client.RemoteDisconnected):
        ask(page, "/frame")
    assert "ZeroDivisionError: ours" in capsys.readouterr().err
