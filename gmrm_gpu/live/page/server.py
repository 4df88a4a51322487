"""A web server for one page on this computer, that an analysis can publish to without ever waiting for a browser."""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import re
import secrets
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import NormalDist
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from ...errors import ConfigError, printable
from ...results import UNIT_TEXT
from ..update import LiveFrame, LiveState
from .feed import Cursor, Feed, plain
from .picture import Painter

ADDRESS = "127.0.0.1"
# A tunnel (ssh -L) may come in by another port, but a foreign page that points its own name here may not.
HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?", re.IGNORECASE)
# Those of the report (report/style.py).
FOREGROUND_COLOUR = "#E69F00"
BACKGROUND_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#666666")
MOST_CONNECTIONS = 64
UPDATE_S = 0.2  # between two messages to one browser
BEAT_S = 2.0  # without news, the page hears this often that the program lives
PATIENCE_S = 10.0  # with a browser that takes nothing
GRACE_S = 0.5  # for the last picture
SAFETY = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class LivePage:
    """The page of a live run. Only this computer can reach it, and only with the token in the address.

    Parameters
    ----------
    title : of the run, for example the name of its source.
    shape : (height, width) of the frames, pixels.
    phase_names : label p + 1 is phase p. foreground : index of the phase that is measured.
    unit, factor : the curve shows share * factor in ``"um3"``, ``"um2"`` or ``"px"``, see `Scale`.
    port : 0 takes any that is free.
    pixel_size_um : for the scale bar; None: no bar.
    interval : part of the cases that the band around the curve should hold.

    Raises
    ------
    ConfigError
        The port is taken, or may not be used.
    """

    def __init__(
        self,
        *,
        title: str,
        shape: tuple[int, int],
        phase_names: Sequence[str],
        foreground: int,
        unit: str,
        factor: float,
        port: int = 0,
        pixel_size_um: float | None = None,
        interval: float = 0.8,
    ) -> None:
        self.token = secrets.token_urlsafe(18)
        setup = {
            "title": printable(title),
            "shape": [int(n) for n in shape],
            "phases": phase_colours(phase_names, foreground),
            "foreground": int(foreground),
            "unit": UNIT_TEXT.get(unit, str(unit)),
            "what": "volume" if unit == "um3" else "area",
            "factor": plain(factor),
            "pixel_size_um": plain(pixel_size_um),
            "interval": float(interval),
            "reach": NormalDist().inv_cdf(0.5 + interval / 2),
        }
        self._feed = Feed()
        self._closed = False
        try:
            self._server = _Server(port, self.token, setup, self._feed)
        except (OSError, OverflowError) as error:
            raise _no_port(port, error) from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="live page", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port of the page."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The address to open in a browser on this computer."""
        return f"http://{ADDRESS}:{self.port}/?token={self.token}"

    def recall(self, number: np.ndarray, time_s: np.ndarray, share: np.ndarray, share_sd: np.ndarray) -> None:
        """Put the frames of an earlier run that is taken up again on the curve, (T,) each; NaN where there is none."""
        columns = (np.arange(len(number)), number, time_s, share, share_sd)
        self._feed.recall(tuple(row) for row in np.array(columns, dtype=float).T.tolist())

    def publish(self, frame: LiveFrame | None, state: LiveState) -> None:
        """Show a frame and how the run is doing; with None for the frame, only the latter. Returns at once."""
        self._feed.publish(frame, state)

    def end(self, message: str) -> None:
        """Say on the page that the run has ended and why; the page stays until `close`."""
        self._feed.end(message)

    def close(self) -> None:
        """Tell open pages that the program stops, and free the port; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._feed.end("The program was stopped.")
        self._server.finish()
        self._thread.join()


def check_port(port: int) -> None:
    """Refuse a port now that `LivePage` could not use later.

    Raises
    ------
    ConfigError
        The port is taken, or may not be used.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            if _Server.allow_reuse_address:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((ADDRESS, port))
            probe.listen()
    except (OSError, OverflowError) as error:
        raise _no_port(port, error) from None


def _no_port(port: int, error: Exception) -> ConfigError:
    reason = getattr(error, "strerror", None) or error
    return ConfigError(f"the page cannot use port {port} ({reason}); give another, or 0 for any")


def phase_colours(names: Sequence[str], foreground: int) -> list[dict[str, str]]:
    """Name and colour of each phase, as in the report."""
    others = iter(BACKGROUND_COLOURS * (1 + len(names) // len(BACKGROUND_COLOURS)))
    return [
        {"name": printable(name), "colour": FOREGROUND_COLOUR if i == foreground else next(others)}
        for i, name in enumerate(names)
    ]


class _Server(ThreadingHTTPServer):
    """One thread a connection, at most `MOST_CONNECTIONS` of them."""

    daemon_threads = True
    block_on_close = False
    # Elsewhere than on POSIX this would let two programs have one port.
    allow_reuse_address = os.name == "posix"

    def __init__(self, port: int, token: str, setup: dict[str, Any], feed: Feed) -> None:
        self.token, self.setup, self.feed, self.painter = token, setup, feed, Painter()
        self.page = Path(__file__).with_name("page.html").read_text("utf-8")
        self.stopping = threading.Event()
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((ADDRESS, port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer would ask a name server for this computer's name, which takes seconds where there is none.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            request.settimeout(0.1)  # this is the thread that accepts
            with contextlib.suppress(OSError):
                request.sendall(b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            self.shutdown_request(request)
            return
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open.discard(request)
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no news; anything else is a fault of ours and is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def n_open(self) -> int:
        """Connections now."""
        with self._lock:
            return len(self._open)

    def finish(self) -> None:
        """Give open pages time for the last message and picture, then close everything."""
        self.stopping.set()
        self.feed.wake()
        if self.n_open():
            time.sleep(GRACE_S)
        self.shutdown()
        with self._lock:
            left = list(self._open)
        for connection in left:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Three things can be asked for: the page, its events, the latest picture."""

    server: _Server
    timeout = PATIENCE_S
    server_version, sys_version = "gmrm-gpu", ""

    def do_GET(self) -> None:
        refusal = self._refusal()
        if refusal is not None:
            self._answer(refusal[0], "text/plain; charset=utf-8", (refusal[1] + "\n").encode())
            return
        path = urlsplit(self.path).path
        if path == "/":
            self._send_page()
        elif path == "/events":
            self._send_events()
        elif path == "/frame":
            self._send_frame()
        else:
            self._answer(404, "text/plain; charset=utf-8", b"There is nothing here.\n")

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal belongs to the run."""

    def _refusal(self) -> tuple[int, str] | None:
        """Status and sentence, unless the request names this computer and carries the token."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or HOST.fullmatch(hosts[0]) is None:
            return 421, "This page answers to 127.0.0.1 and localhost only."
        try:
            given = parse_qs(urlsplit(self.path).query, max_num_fields=8).get("token", [])
        except ValueError:
            return 400, "This address cannot be read."
        if len(given) != 1 or not hmac.compare_digest(given[0].encode(), self.server.token.encode()):
            return 403, "The token is missing or wrong: open the whole address that the program printed."
        return None

    def _answer(self, status: int, kind: str, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**SAFETY, "Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _send_page(self) -> None:
        nonce = secrets.token_urlsafe(12)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        content = self.server.page.replace("NONCE", nonce).encode()
        self._answer(200, "text/html; charset=utf-8", content, **{"Content-Security-Policy": policy})

    def _send_frame(self) -> None:
        frame = self.server.feed.frame
        content = b"" if frame is None else self.server.painter.bytes_of(frame)
        self._answer(204 if frame is None else 200, "application/octet-stream", content)

    def _send_events(self) -> None:
        """Server-sent events until either side goes: once how to show the run, then what is new, `UPDATE_S` apart."""
        self.send_response(200)
        for name, value in {**SAFETY, "Content-Type": "text/event-stream"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"retry: 1000\n\n" + event("setup", self.server.setup))
        cursor, last = Cursor(), False
        while not last:
            last = self.server.stopping.is_set()
            news, cursor = self.server.feed.since(cursor)
            self.wfile.write(event("news", news))
            if not self.server.stopping.wait(UPDATE_S):
                self.server.feed.wait(cursor, BEAT_S)


def event(name: str, content: dict[str, Any]) -> bytes:
    """One server-sent event; JSON has no bare line break, so one data line holds it."""
    return f"event: {name}\ndata: {json.dumps(content, allow_nan=False)}\n\n".encode()
