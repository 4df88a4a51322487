"""AVI, MP4 and MOV through PyAV (extra `video`).

For YUV and grey formats a frame is the luma plane exactly as stored: 16 to 235 is not stretched to 0 to 255, an
affine change of grey levels that would leave the fit as it is and add rounding. With `luminance` too the luma is
taken, whose weights are those the file was encoded with. RGB formats are weighted as in `colour`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MissingDependencyError
from .child import beat
from .colour import colour_error, to_grey
from .movie import Acquisition, Movie

# Chroma that a lossy codec leaves on a grey picture, levels of 255.
_NEUTRAL = 2
# Times are rounded to the unit of the file, often a millisecond; a missing frame makes a step twice as long.
_EVEN = 1.8

# By content, whatever the name: FFmpeg would also play lists of other files and of addresses.
_CONTAINERS = {
    "format_whitelist": "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,flv,asf,ogg,m4v",
    "protocol_whitelist": "file",
}


def open_file(path: Path, *, luminance: bool = False) -> Movie:
    """Open a video; the frame time is the inverse of its average rate. Its first frame decides about colour."""
    try:
        import av
    except ImportError:
        raise MissingDependencyError("reading video needs PyAV: pip install 'gmrm-gpu[video]'") from None
    try:
        index = _scan(av, path)
    except InputError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path.name} is truncated or not a video ({reason}); copy or export it again") from None
    movie = VideoMovie(av, path, index, luminance)
    movie._pixels(0)
    return movie


@dataclass(frozen=True)
class _Index:
    """What reading the packets without decoding tells. `times` is None where frames can only be counted."""

    n_frames: int
    times: np.ndarray | None
    keyframes: np.ndarray
    shape: tuple[int, int]
    dtype: np.dtype
    known: Acquisition


class VideoMovie(Movie):
    """One decoder, moved forward or sent back to a keyframe under a lock."""

    def __init__(self, av: Any, path: Path, index: _Index, luminance: bool) -> None:
        super().__init__(
            name=path.name,
            shape=index.shape,
            dtype=index.dtype,
            n_frames=index.n_frames,
            acquisition=index.known,
        )
        self._av, self._path, self._index, self._luminance = av, path, index, luminance
        self._lock = threading.Lock()
        self._container: Any = None
        self._close: Callable[[], Any] = lambda: None
        self._frames: Iterator[Any] = iter(())
        self._next = 0
        self._last: tuple[int, np.ndarray] | None = None

    def _read(self, t: int) -> np.ndarray:
        with self._lock:
            if self._last is None or self._last[0] != t:
                try:
                    pixels = self._decode(t)
                except (self._av.FFmpegError, OSError) as error:
                    self._restart()
                    raise self._damaged(t, getattr(error, "strerror", None) or str(error)) from None
                pixels.flags.writeable = False
                self._last = (t, pixels)
            return self._last[1]

    def _decode(self, t: int) -> np.ndarray:
        times = self._index.times
        if times is None:
            if self._container is None or t < self._next:
                self._restart()
            return self._grey(self._take(t - self._next, t), t)
        keyframes = self._index.keyframes
        at = int(np.searchsorted(keyframes, t, side="right")) - 1
        keyframe = int(keyframes[at]) if at >= 0 else 0
        if self._container is None:
            self._restart()
        if t < self._next or keyframe > self._next:
            self._container.seek(int(times[keyframe]), stream=self._container.streams.video[0])
            self._frames = self._container.decode(video=0)
        frame = self._advance(t, int(times[t]))
        if frame is None or frame.is_corrupt:  # the seek landed too late, or where a picture needs earlier ones
            self._restart()
            frame = self._advance(t, int(times[t]))
        if frame is None:
            raise self._damaged(t, "no picture at its time")
        return self._grey(frame, t)

    def _advance(self, t: int, time: int) -> Any:
        """The frame shown at `time`, or None if the decoder is already past it."""
        while True:
            frame = self._take(0, t)
            if frame.pts is None or frame.pts >= time:
                self._next = t + 1
                return frame if frame.pts == time else None

    def _take(self, skip: int, t: int) -> Any:
        for _ in range(skip + 1):
            frame = next(self._frames, None)
            if frame is None:
                self._restart()
                raise self._damaged(t, f"the video should have {len(self)} frames and ends before")
            self._next += 1
            beat()
        return frame

    def _restart(self) -> None:
        if self._container is not None:
            self._close()
        self._container = self._av.open(str(self._path), options=_CONTAINERS)
        self._close = weakref.finalize(self, self._container.close)
        self._frames = self._container.decode(video=0)
        self._next = 0
        self._last = None

    def _damaged(self, t: int, reason: str) -> InputError:
        return InputError(f"frame {t} of {self.name} cannot be decoded ({reason}); the file is truncated or damaged")

    def _grey(self, frame: Any, t: int) -> np.ndarray:
        if frame.is_corrupt:
            raise self._damaged(t, "the decoder had to guess parts of it")
        frame = _planar(frame)
        if frame.format.name in ("rgb24", "rgb48le"):
            pixels = frame.to_ndarray()
            return np.array(to_grey(pixels, t, self.name, luminance=self._luminance))
        bits = frame.format.components[0].bits
        if not self._luminance and len(frame.format.components) >= 3:
            for number in range(1, min(3, len(frame.planes))):
                chroma = _plane(frame, number).astype(np.int32) - (1 << (bits - 1))
                if np.abs(chroma).max(initial=0) > _NEUTRAL << (bits - 8):
                    raise colour_error(t, self.name)
        return _plane(frame, 0).copy()


def _planar(frame: Any) -> Any:
    """`frame` in a format whose first plane is its luma, or in RGB."""
    name, bits = frame.format.name, frame.format.components[0].bits
    if name in ("yuyv422", "uyvy422", "yvyu422"):
        return frame.reformat(format="yuv422p")
    if name.startswith(("gray", "yuv", "nv")) and (frame.format.is_planar or name.startswith("gray")):
        return frame
    return frame.reformat(format="rgb24" if bits <= 8 else "rgb48le")


def _plane(frame: Any, number: int) -> np.ndarray:
    plane, layout = frame.planes[number], frame.format
    kind = np.dtype(np.uint8 if layout.components[0].bits <= 8 else np.uint16)
    kind = kind.newbyteorder(">" if layout.is_big_endian else "<")
    rows = np.frombuffer(plane, dtype=kind).reshape(plane.height, plane.line_size // kind.itemsize)
    # In nv12 and its kin the second plane holds two values a pixel.
    paired = layout.name.startswith("nv") and number == 1
    return rows[:, : plane.width * (2 if paired else 1)]


def _scan(av: Any, path: Path) -> _Index:
    with av.open(str(path), options=_CONTAINERS) as container:
        if not container.streams.video:
            raise InputError(f"{path.name} holds no video; give a movie")
        stream = container.streams.video[0]
        packets, announced = _packets(container, stream), int(stream.frames)
        if len(packets) < announced:
            raise InputError(
                f"{path.name} is truncated: {len(packets)} of {announced} frames are there; copy or export it again"
            )
        shown = [(pts, key) for pts, key, discard in packets if not discard]
        context, rate = stream.codec_context, stream.average_rate or stream.guessed_rate
        if not shown or not context.pix_fmt:
            raise InputError(f"{path.name} has no frames that can be decoded; give a movie with at least one")
        times, keyframes = _timeline(shown)
        if times is not None and rate and not announced and _is_steady(times) and container.duration:
            # Matroska does not count its frames, but knows how long they last.
            end, whole = float(times[-1] * stream.time_base), container.duration / av.time_base
            if len(container.streams) == 1 and end + 1.5 / float(rate) < whole:
                raise InputError(f"{path.name} is truncated: {end:g} s of {whole:g} s; copy or export it again")
        dtype = np.dtype(np.uint8 if context.format.components[0].bits <= 8 else np.uint16)
        shape = (context.height, context.width)
        notes = _doubts(len(packets), announced, times, float(stream.time_base or 0))
    known = Acquisition(frame_time_s=float(1 / rate) if rate else None, notes=notes)
    return _Index(len(shown), times, keyframes, shape, dtype, known)


def _doubts(held: int, announced: int, times: np.ndarray | None, unit_s: float) -> tuple[str, ...]:
    """Sentences on what may be damage, or the way of the program that wrote the video."""
    notes = []
    if announced and held > announced:
        notes.append(f"the header counts {announced} frames and the video holds {held}: all are read")
    steps = np.diff(times) * unit_s if times is not None and times.size > 2 else np.ones(2)
    if steps.max() > _EVEN * steps.min():
        told = f"by {steps.min():.6g} to {steps.max():.6g} s"
        notes.append(f"the frames are unevenly spaced in time, {told}: some may be missing, and their mean is taken")
    return tuple(notes)


def _packets(container: Any, stream: Any) -> list[tuple[int | None, bool, bool]]:
    """(time, is a keyframe, is not shown) of every whole packet; empty ones only flush the decoder."""
    found = []
    for packet in container.demux(stream):
        beat()
        if packet.size and not packet.is_corrupt:
            found.append((packet.pts, packet.is_keyframe, packet.is_discard))
    return found


def _is_steady(times: np.ndarray) -> bool:
    steps = np.diff(times)
    return bool(np.all(np.abs(steps - steps.mean()) <= 0.5 * steps.mean())) if steps.size else True


def _timeline(shown: list[tuple[int | None, bool]]) -> tuple[np.ndarray | None, np.ndarray]:
    """Ascending times of the frames, None where they are missing or ambiguous, and the positions of keyframes."""
    if any(pts is None for pts, _ in shown):
        return None, np.zeros(1, dtype=np.int64)
    ordered = sorted((pts, key) for pts, key in shown if pts is not None)
    times = np.array([pts for pts, _ in ordered], dtype=np.int64)
    if np.any(np.diff(times) == 0):
        return None, np.zeros(1, dtype=np.int64)
    return times, np.flatnonzero([key for _, key in ordered])
