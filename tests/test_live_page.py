"""The page of a live run: who gets in, what it says, and that no browser can hold up the analysis."""

from __future__ import annotations

import http.client
import json
import math
import socket
import threading
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from live_pages import EVIL, STATE, ask, frame_at, make_page

from gmrm_gpu.errors import ConfigError
from gmrm_gpu.live.page import LivePage, server
from gmrm_gpu.live.update import Alarm
from gmrm_gpu.report import style
from gmrm_gpu.results import FitStatus


@pytest.fixture
def page(monkeypatch):
    monkeypatch.setattr(server, "GRACE_S", 0.05)
    with closing(make_page()) as made:
        yield made


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
    assert news["frame"]["means"] == [40, 158.25]
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


def test_a_run_taken_up_again_shows_its_past(page):
    page.recall(np.arange(10, 13), np.array([0, 1, np.nan]), np.array([0.1, np.nan, 0.3]), np.full(3, 0.01))
    with closing(Listener(page)) as first:
        news = first.until(lambda n: n["recent"])
        assert news["recent"] == [[0, 10, 0, 0.1, 0.01], [1, 11, 1, None, 0.01], [2, 12, None, 0.3, 0.01]]
        assert (news["frame"], news["stalled"]) == (None, False)
        page.publish(frame_at(3), STATE)
        assert first.until(lambda n: n["frame"])["recent"] == [[3, 103, 1.5, 0.25, 0.01]]


def test_an_open_page_hears_of_the_end(page, listener):
    page.end("The source has ended.")
    page.end("Nobody hears this.")
    assert listener.until(lambda n: n["ended"])["message"] == "The source has ended."


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
    before = set(threading.enumerate())
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
    while not (quiet := set(threading.enumerate()) <= before) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert quiet, "a thread goes on"
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
