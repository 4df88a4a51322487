"""Frames sent over a ZeroMQ socket (extra `live`), as `message` describes them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

from ...errors import ConfigError, InputError, MissingDependencyError
from .arrival import Arrival, Notice, Source
from .message import MOST_BYTES, parse_acquisition, parse_frame, parse_header

PORT = 5599
_WAITING = 16
"""Messages that ZeroMQ itself may hold."""
_POLL_MS = 100
_LOOPBACK = re.compile(r"tcp://(127\.\d+\.\d+\.\d+|localhost|\[::1\])(:|$)")


class ZeroMQSource(Source):
    """Frames from a socket; wrong messages are told and left out, and senders may come and go.

    Parameters
    ----------
    address : ``"tcp://127.0.0.1:5599"``. Any computer that reaches another address than 127.0.0.1 can send, unchecked
        and unencrypted.
    subscribe : connect to a publisher (SUB) at `address`, in place of binding a PULL socket there.

    Raises
    ------
    MissingDependencyError
        Without pyzmq.
    ConfigError
        The address cannot be used.
    """

    waits = False

    def __init__(self, address: str = f"tcp://127.0.0.1:{PORT}", *, subscribe: bool = False) -> None:
        try:
            import zmq
        except ImportError:
            raise MissingDependencyError("frames over ZeroMQ need pyzmq: pip install 'gmrm-gpu[live]'") from None
        self._zmq: Any = zmq
        self._closed = threading.Event()
        self._context: Any = zmq.Context()
        self._socket: Any = self._context.socket(zmq.SUB if subscribe else zmq.PULL)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, _WAITING)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MOST_BYTES)
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_ACCEPTED | zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED
        )
        try:
            if subscribe:
                self._socket.setsockopt(zmq.SUBSCRIBE, b"")
                self._socket.connect(address)
            else:
                self._socket.bind(address)
        except zmq.ZMQError as error:
            self._release()
            raise ConfigError(
                f"{address} cannot be used ({error}); give an address such as tcp://127.0.0.1:{PORT}"
            ) from None
        self.name = address if subscribe else self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._open_to_all = not subscribe and _LOOPBACK.match(address) is None
        self._disagrees: dict[str, float] = {}
        self._n_senders, self._known, self._read = 0, False, False

    def __iter__(self) -> Iterator[Arrival | Notice]:
        poller = self._zmq.Poller()
        for socket in (self._socket, self._monitor):
            poller.register(socket, self._zmq.POLLIN)
        self._read = True
        try:
            if self._open_to_all:
                yield Notice(f"{self.name} is open to every computer that reaches it; nothing is encrypted or checked")
            while not self._closed.is_set():
                ready = dict(poller.poll(_POLL_MS))
                if self._monitor in ready:
                    yield from self._connection()
                if self._socket in ready:
                    item = self._receive()
                    if item is None:
                        return
                    yield from item
        finally:
            self._release()

    def close(self) -> None:
        """Let the iterator end within a tenth of a second; without one, free the address at once."""
        self._closed.set()
        if not self._read:  # a socket may be closed only by the thread that uses it
            self._release()

    def _connection(self) -> Iterator[Notice]:
        from zmq.utils.monitor import recv_monitor_message

        event = recv_monitor_message(self._monitor)["event"]
        if event == self._zmq.EVENT_DISCONNECTED:
            self._n_senders = max(0, self._n_senders - 1)
            yield Notice(f"a sender left; {self._n_senders} connected")
        else:
            self._n_senders += 1
            yield Notice(f"a sender connected; {self._n_senders} connected")

    def _receive(self) -> list[Arrival | Notice] | None:
        """What one message holds; None where it says that the stream has ended."""
        parts = self._socket.recv_multipart(copy=False)
        try:
            header = parse_header(bytes(parts[0].buffer))
            if header["kind"] == "end":
                return None
            if len(parts) != 2:
                raise InputError(f"a message has {len(parts)} parts; send two, the header and the buffer")
            arrival = parse_frame(header, parts[1].buffer)
        except InputError as error:
            return [Notice(f"{error}; left out", 1)]
        return [*self._recording(header), arrival]

    def _recording(self, header: dict[str, Any]) -> Iterator[Notice]:
        """Take what the first header says of the recording; tell where later ones disagree."""
        found, notes = parse_acquisition(header)
        if not self._known:
            self.acquisition, self._known = found, True
            yield from (Notice(text) for text in notes)
            return
        for name, unit in (("pixel_size_um", "um"), ("frame_time_s", "s")):
            old, new = getattr(self.acquisition, name), getattr(found, name)
            if new is not None and (old is None or abs(new / old - 1) > 1e-3) and self._disagrees.get(name) != new:
                self._disagrees[name] = new  # said once, not for every frame
                was = "none" if old is None else f"{old:g} {unit}"
                text = f"frame {header['number']} has the {name} {new:g}, the first {was}"
                yield Notice(f"{text}; what the first said is used")

    def _release(self) -> None:
        if self._context.closed:
            return
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
        self._context.term()


__all__ = ["PORT", "ZeroMQSource"]
