"""The movie every reader offers, a movie held in an array, and a lazy view of some frames and pixels of another.

A frame is a 2-D host array of grey levels in the stored type (native byte order; bool is read as uint8 0 and 1). Of a
sub-sampled movie there are no frames, only visits: places and grey levels of the pixels that the beam went to.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ConfigError, InputError, printable
from .colour import to_grey
from .origin import Origin


@dataclass(frozen=True)
class Acquisition:
    """How a movie was recorded, as far as its source says.

    Attributes
    ----------
    pixel_size_um : side of a (square) pixel, micrometres. frame_time_s : seconds from one frame number to the next.
    times_s : (T,) time of each frame where they are not evenly spaced; ascending.
    detector : name of the detector or camera. bit_depth : bits that a grey level really has.
    notes : for the user, what the reader found: frames that are missing, a calibration not used.
    """

    pixel_size_um: float | None = None
    frame_time_s: float | None = None
    times_s: np.ndarray | None = None
    detector: str | None = None
    bit_depth: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """The notes with a capital and a full stop, whichever reader wrote them; a file's name is left as it is."""
        starts = (n[:1].upper() + n[1:] if n.split(" ", 1)[0].isalpha() else n for n in self.notes)
        return tuple(text if text.endswith((".", "?", "!")) else f"{text}." for text in starts)


@dataclass(frozen=True)
class Visits:
    """The pixels of one frame that the beam visited; a pixel visited twice is there twice.

    Attributes
    ----------
    positions : (n,) int32, flat indices y * width + x, in any order. values : (n,) grey levels in the movie's type.
    """

    positions: np.ndarray
    values: np.ndarray


class Movie:
    """What every reader offers; subclasses supply `_read`, or `_read_visits` where the movie is sub-sampled.

    Parameters
    ----------
    name : shown in messages and reports; what cannot be printed is written out (`errors.printable`).
    shape : (height, width) in pixels.
    dtype : stored type of the pixels; bool, integer or real.
    n_frames : number of frames, at least 1.
    pixel_size_um : side of a pixel, micrometres; None where unknown.
    frame_time_s : seconds from one frame number to the next; None where unknown.
    frame_numbers : (T,) numbers of the frames in the source; None: 0, 1, ...
    valid : (height, width) bool, False where a pixel is excluded; None: every pixel may be used.
    acquisition : what else is known of the recording; the two calibrations above come first.
    sampled : whether only some pixels of each frame were visited. Such a movie has `visits` and no `frame`.

    Raises
    ------
    InputError
        No frames, empty frames, or a type that is not grey levels.
    """

    origin: Origin | None = None  # how `open_movie` made it, where it is made of a file

    def __init__(
        self,
        *,
        name: str,
        shape: tuple[int, int],
        dtype: np.dtype,
        n_frames: int,
        pixel_size_um: float | None = None,
        frame_time_s: float | None = None,
        frame_numbers: np.ndarray | None = None,
        valid: np.ndarray | None = None,
        acquisition: Acquisition | None = None,
        sampled: bool = False,
    ) -> None:
        self.name, self.sampled = printable(name), sampled
        self.shape = (int(shape[0]), int(shape[1]))
        self.dtype = grey_dtype(np.dtype(dtype), name)
        known = acquisition or Acquisition()
        self.acquisition = replace(
            known,
            detector=None if known.detector is None else printable(known.detector),
            notes=tuple(printable(note) for note in known.notes),
            pixel_size_um=_positive("pixel_size_um", known.pixel_size_um if pixel_size_um is None else pixel_size_um),
            frame_time_s=_positive("frame_time_s", known.frame_time_s if frame_time_s is None else frame_time_s),
        )
        if n_frames < 1:
            raise InputError(f"{name} has no frames; give a movie with at least one")
        if 0 in self.shape:
            raise InputError(f"{name} has frames of {size_text(self.shape)} pixels; give frames that are not empty")
        numbers = np.arange(n_frames) if frame_numbers is None else frame_numbers
        self.frame_numbers = np.array(numbers, dtype=np.int64)
        if self.frame_numbers.shape != (n_frames,):
            raise InputError(f"{name} has {n_frames} frames but {self.frame_numbers.size} frame numbers; give one each")
        self.valid = _check_valid(valid, self.shape, name)

    @property
    def pixel_size_um(self) -> float | None:
        """Side of a pixel, micrometres."""
        return self.acquisition.pixel_size_um

    @property
    def frame_time_s(self) -> float | None:
        """Seconds from one frame number to the next."""
        return self.acquisition.frame_time_s

    @property
    def n_pixels(self) -> int:
        """Pixels of a frame that are not excluded."""
        return self.shape[0] * self.shape[1] if self.valid is None else int(self.valid.sum())

    def __len__(self) -> int:
        return len(self.frame_numbers)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {len(self)} frames of {size_text(self.shape)}, {self.dtype}>"

    def frame(self, t: int) -> np.ndarray:
        """Frame `t` (0 <= t < len), read when asked; safe to call from several threads, in any order.

        Returns
        -------
        (height, width) C-contiguous array of `dtype`; it may be read-only. Excluded pixels keep their stored value.

        Raises
        ------
        InputError
            The frame cannot be read, differs in size or type, or holds NaN or infinite values that are not excluded;
            or the movie is sub-sampled and has no frames.
        """
        pixels = np.ascontiguousarray(self._pixels(t))
        if self.dtype.kind == "f":
            bad = ~np.isfinite(pixels)
            if self.valid is not None:
                bad &= self.valid
            count = int(np.count_nonzero(bad))
            if count:
                kind = "NaN" if np.isnan(pixels[bad]).all() else "NaN or infinite"
                raise InputError(
                    f"frame {self.frame_numbers[t]} of {self.name} has {count} {kind} pixels; "
                    "NaN needs a mask: give --exclude, or --unvisited nan where the beam did not go"
                )
        return pixels

    def visits(self, t: int) -> Visits:
        """The visited pixels of frame `t` that are not excluded; of a movie that is not sub-sampled, all of them.

        Raises
        ------
        InputError
            As `frame`; or visits lie outside the frame. A sub-sampled frame without any is no error.
        """
        if not self.sampled:
            pixels = self.frame(t).reshape(-1)
            where = np.arange(pixels.size) if self.valid is None else np.flatnonzero(self.valid)
            return Visits(where.astype(np.int32), pixels[where])
        seen = self._visits(t)
        if self.valid is not None:
            inside = self.valid.reshape(-1)[seen.positions]
            seen = Visits(seen.positions[inside], seen.values[inside])
        here = f"frame {self.frame_numbers[t]} of {self.name}"
        if seen.values.dtype.kind == "f" and not np.isfinite(seen.values).all():
            count = int((~np.isfinite(seen.values)).sum())
            raise InputError(
                f"{here} has {count:,} of {seen.values.size:,} visits at a grey level that is NaN or infinite; leave "
                "them out, or exclude them; if a mask calls them visited, give that of this movie, or --unvisited nan"
            )
        return seen

    def picture(self, t: int) -> np.ndarray:
        """Frame `t` to look at: as `frame`; where sub-sampled, float32 means of each pixel's visits, NaN without."""
        if not self.sampled:
            return self.frame(t)
        seen, size = self.visits(t), self.shape[0] * self.shape[1]
        count = np.bincount(seen.positions, minlength=size)
        total = np.bincount(seen.positions, weights=seen.values.astype(np.float64), minlength=size)
        image = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return image.astype(np.float32).reshape(self.shape)

    def _pixels(self, t: int) -> np.ndarray:
        self._check_number(t)
        if self.sampled:
            raise InputError(f"{self.name} is sub-sampled and has no whole frames, which this needs; see Movie.visits")
        pixels = self._read(operator.index(t))
        if pixels.shape != self.shape:
            raise InputError(
                f"frame {t} of {self.name} has {size_text(pixels.shape)} pixels, the first {size_text(self.shape)}; "
                "give frames of one size"
            )
        stored = grey_dtype(pixels.dtype, self.name)
        if stored != self.dtype:
            raise InputError(f"frame {t} of {self.name} is {stored}, the first {self.dtype}; give frames of one type")
        return pixels.astype(self.dtype, copy=False)

    def _visits(self, t: int) -> Visits:
        """The visits of frame `t`, excluded pixels too, checked."""
        self._check_number(t)
        seen = self._read_visits(operator.index(t))
        positions, values = np.asarray(seen.positions), np.asarray(seen.values)
        where = f"frame {self.frame_numbers[t]} of {self.name}"
        if positions.ndim != 1 or positions.shape != values.shape:
            raise InputError(f"{where} has {positions.size} places for {values.size} grey levels; give one each")
        size = self.shape[0] * self.shape[1]
        outside = int(((positions < 0) | (positions >= size)).sum())
        if outside:
            raise InputError(f"{where} has {outside} visits outside of its {size_text(self.shape)} pixels")
        stored = grey_dtype(values.dtype, self.name)
        if stored != self.dtype:
            raise InputError(f"{where} is {stored}, the movie {self.dtype}; give visits of one type")
        return Visits(positions.astype(np.int32, copy=False), values.astype(self.dtype, copy=False))

    def _check_number(self, t: int) -> None:
        if not 0 <= operator.index(t) < len(self):
            raise IndexError(f"frame {t} of {self.name}, which has frames 0 to {len(self) - 1}")

    def _read_visits(self, t: int) -> Visits:
        """The stored visits of frame `t` of a sub-sampled movie; any byte order."""
        raise NotImplementedError

    def _read(self, t: int) -> np.ndarray:
        """The stored grey levels of frame `t`; any byte order or stride."""
        raise NotImplementedError


class ArrayMovie(Movie):
    """A movie held in an array, memory-mapped or not; nothing is copied.

    Parameters
    ----------
    array : (T, height, width), or one frame (height, width), or colour (T, height, width, 3 or 4).
    luminance : turn colour into grey; without it, colour whose channels differ is refused.
    name, pixel_size_um, frame_time_s, frame_numbers, valid : see `Movie`.
    """

    def __init__(
        self,
        array: np.ndarray,
        *,
        name: str = "array",
        pixel_size_um: float | None = None,
        frame_time_s: float | None = None,
        frame_numbers: np.ndarray | None = None,
        valid: np.ndarray | None = None,
        luminance: bool = False,
        acquisition: Acquisition | None = None,
    ) -> None:
        array = np.asarray(array)
        if array.ndim == 2:
            array = array[np.newaxis]
        colour = array.ndim == 4 and array.shape[3] in (3, 4)
        if array.ndim != 3 and not colour:
            raise InputError(
                f"{name} has shape {array.shape}; give (time, height, width), or one frame (height, width)"
            )
        super().__init__(
            name=name,
            shape=array.shape[1:3],
            dtype=array.dtype,
            n_frames=array.shape[0],
            pixel_size_um=pixel_size_um,
            frame_time_s=frame_time_s,
            frame_numbers=frame_numbers,
            valid=valid,
            acquisition=acquisition,
        )
        self._array = array
        self._luminance = luminance
        if colour:
            self._pixels(0)

    def _read(self, t: int) -> np.ndarray:
        frame = self._array[t]
        if frame.ndim == 3:
            return to_grey(frame, t, self.name, luminance=self._luminance)
        frame = frame.view()
        frame.flags.writeable = False
        return frame


class MovieView(Movie):
    """Some frames and pixels of another movie; nothing is read or copied before a frame is asked for.

    Parameters
    ----------
    source : the movie looked at.
    index : (T,) positions in `source`, ascending; None: all.
    rows, columns : the crop, with start and stop given; None: all.
    valid : (height, width) bool of the view, joined with what `source` excludes; None: nothing more.
    clip : lowest and highest grey level; None: as they are.
    pixel_size_um, frame_time_s : replace those of `source`; None: keep.
    """

    def __init__(
        self,
        source: Movie,
        *,
        index: Sequence[int] | np.ndarray | None = None,
        rows: slice | None = None,
        columns: slice | None = None,
        valid: np.ndarray | None = None,
        clip: tuple[float, float] | None = None,
        pixel_size_um: float | None = None,
        frame_time_s: float | None = None,
    ) -> None:
        self._source, self._clip = source, clip
        self._index = np.arange(len(source)) if index is None else np.asarray(index, dtype=np.int64)
        self._crop = (rows or slice(0, source.shape[0]), columns or slice(0, source.shape[1]))
        inherited = None if source.valid is None else source.valid[self._crop]
        if inherited is not None:
            valid = inherited if valid is None else inherited & valid
        # A frame time of the caller's holds for all frames.
        times = source.acquisition.times_s if frame_time_s is None else None
        super().__init__(
            name=source.name,
            shape=(self._crop[0].stop - self._crop[0].start, self._crop[1].stop - self._crop[1].start),
            dtype=source.dtype,
            n_frames=len(self._index),
            pixel_size_um=pixel_size_um,
            frame_time_s=frame_time_s,
            frame_numbers=source.frame_numbers[self._index],
            valid=valid,
            acquisition=replace(source.acquisition, times_s=None if times is None else times[self._index]),
            sampled=source.sampled,
        )

    def _read(self, t: int) -> np.ndarray:
        # Not source.frame: its NaN may lie outside the crop or under this view's mask.
        return self._clipped(self._source._pixels(int(self._index[t]))[self._crop])

    def _read_visits(self, t: int) -> Visits:
        seen = self._source._visits(int(self._index[t]))
        y, x = np.divmod(seen.positions, self._source.shape[1])
        rows, columns = self._crop
        inside = (y >= rows.start) & (y < rows.stop) & (x >= columns.start) & (x < columns.stop)
        positions = (y[inside] - rows.start) * self.shape[1] + x[inside] - columns.start
        return Visits(positions, self._clipped(seen.values[inside]))

    def _clipped(self, levels: np.ndarray) -> np.ndarray:
        if self._clip is None:
            return levels
        low, high = self._clip
        if levels.dtype.kind in "iu":  # whole limits within the type, which may not hold the numbers given
            kind = np.iinfo(levels.dtype)
            low, high = (int(min(max(value, kind.min), kind.max)) for value in (math.ceil(low), math.floor(high)))
        return np.clip(levels, low, high)


def grey_dtype(dtype: np.dtype, name: str) -> np.dtype:
    """The type frames of stored type `dtype` have: native byte order, bool as uint8; `InputError` if not numbers."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind not in "uif":
        raise InputError(f"{name} has pixels of type {dtype}; give grey levels as integers or real numbers")
    return dtype.newbyteorder("=")


def size_text(shape: tuple[int, ...]) -> str:
    """``(303, 288)`` -> ``"303 x 288"``, height first."""
    return " x ".join(str(n) for n in shape)


def _positive(what: str, value: float | None) -> float | None:
    if value is None:
        return None
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{what} is {value!r}; it must be above zero")
    return float(value)


def _check_valid(valid: np.ndarray | None, shape: tuple[int, int], name: str) -> np.ndarray | None:
    if valid is None:
        return None
    valid = np.ascontiguousarray(valid, dtype=bool)
    if valid.shape != shape:
        raise InputError(
            f"the mask has {size_text(valid.shape)} pixels, {name} has {size_text(shape)}; make them equal"
        )
    if not valid.any():
        raise InputError(f"the mask excludes every pixel of {name}; nonzero means excluded, so maybe invert it")
    return None if valid.all() else valid
