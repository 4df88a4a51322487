"""Tiny non-square movies, and files that hold them in every format."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import PIL.Image
import tifffile

from gmrm_gpu.frames import Movie

T, H, W = 9, 24, 34
RNG = np.random.default_rng(7)
STACK = RNG.integers(16, 235, (T, H, W)).astype(np.uint8)
COLOUR = RNG.integers(0, 255, (T, H, W, 3)).astype(np.uint8)
GREY_RGB = np.repeat(STACK[..., None], 3, axis=3)


def read_all(movie: Movie) -> np.ndarray:
    return np.stack([movie.frame(t) for t in range(len(movie))])


class Spy(Movie):
    """A movie that notes which frames were read."""

    def __init__(self, stack: np.ndarray) -> None:
        super().__init__(name="spy", shape=stack.shape[1:], dtype=stack.dtype, n_frames=len(stack), frame_time_s=2.0)
        self.stack, self.reads = stack, []

    def _read(self, t: int) -> np.ndarray:
        self.reads.append(t)
        return self.stack[t]


def write_video(path: Path, codec: str, pix_fmt: str, frames: np.ndarray, layout: str, **options: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        for frame in frames:
            if layout == "yuv420p":
                frame = np.vstack([frame, np.full((H // 2, W), 128, np.uint8)])
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format=layout)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def lossless_mp4(path: Path, frames: np.ndarray = STACK) -> Path:
    return write_video(path, "libx264", "yuv420p", frames, "yuv420p", qp="0", bf="2", g="4")


def write_folder(folder: Path, frames: np.ndarray, suffix: str = ".png") -> Path:
    folder.mkdir()
    for t, frame in enumerate(frames):
        PIL.Image.fromarray(frame).save(folder / f"f{t + 8}{suffix}")  # f8, f9, f10: natural order matters
    return folder


def write_gif(path: Path, frames: np.ndarray, **options: int) -> Path:
    images = [PIL.Image.fromarray(frame) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, **options)
    return path


def exact_sources(folder: Path) -> dict[str, Path]:
    """One file of each lossless kind, all holding STACK."""
    files = {
        name: folder / name for name in ("a.npy", "a.npz", "c.npz", "a.tif", "z.tif", "ij.tif", "one.tif", "be.tif")
    }
    np.save(files["a.npy"], STACK)
    np.savez(files["a.npz"], movie=STACK, times=np.arange(T))
    np.savez_compressed(files["c.npz"], movie=STACK)
    tifffile.imwrite(files["a.tif"], STACK, photometric="minisblack")
    tifffile.imwrite(files["z.tif"], STACK, photometric="minisblack", compression="zlib")
    tifffile.imwrite(files["ij.tif"], STACK, imagej=True)
    tifffile.imwrite(files["one.tif"], STACK, imagej=True, truncate=True)  # how ImageJ writes above 4 GB
    tifffile.imwrite(files["be.tif"], STACK, photometric="minisblack", bigtiff=True, byteorder=">")
    files["rgb.tif"] = folder / "rgb.tif"
    tifffile.imwrite(files["rgb.tif"], GREY_RGB, photometric="rgb")
    files["planar.tif"] = folder / "planar.tif"
    tifffile.imwrite(
        files["planar.tif"], np.moveaxis(GREY_RGB, 3, 1), photometric="rgb", planarconfig="separate", compression="zlib"
    )
    files["x.mp4"] = lossless_mp4(folder / "x.mp4")
    files["x.mov"] = write_video(folder / "x.mov", "libx264", "yuv420p", STACK, "yuv420p", qp="0", movflags="faststart")
    files["x.avi"] = write_video(folder / "x.avi", "libx264", "yuv420p", STACK, "yuv420p", qp="0", bf="2", g="4")
    files["raw.avi"] = write_video(folder / "raw.avi", "rawvideo", "bgr24", GREY_RGB, "rgb24")
    files["x.mkv"] = write_video(folder / "x.mkv", "ffv1", "gray", STACK, "gray")
    files["x.gif"] = write_gif(folder / "x.gif", STACK)
    files["png"] = write_folder(folder / "png", STACK)
    files["rgb"] = write_folder(folder / "rgb", GREY_RGB)
    files["tif"] = write_folder(folder / "tif", STACK, ".tif")
    return files


def colour_sources(folder: Path, frames: np.ndarray) -> list[Path]:
    np.save(folder / "c.npy", frames)
    np.savez(folder / "c.npz", frames)
    tifffile.imwrite(folder / "c.tif", frames, photometric="rgb")
    raw = write_video(folder / "c.avi", "rawvideo", "bgr24", frames, "rgb24")
    return [folder / "c.npy", folder / "c.npz", folder / "c.tif", raw, write_folder(folder / "c", frames)]
