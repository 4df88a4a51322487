"""Synthetic operando movies with the truth of every pixel.

>>> from gmrm_gpu.synthetic import simulate
>>> sim = simulate("battery", shape=(64, 64), n_frames=5, seed=1)
>>> sim.truth.shape
(5, 64, 64)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..config import check_within
from ..frames.movie import ArrayMovie
from .battery import BatteryScene
from .options import (
    DIFFICULTIES,
    SCENARIOS,
    BatteryOptions,
    ParticleOptions,
    SceneOptions,
    check_movie,
    n_empty_frames,
    scene_options,
)
from .particles import ParticleScene
from .recording import TREND, Conditions, Recorder, conditions, margin_of

__all__ = ["DIFFICULTIES", "SCENARIOS", "BatteryOptions", "ParticleOptions", "Simulation", "simulate"]


@dataclass(frozen=True)
class Simulation:
    """A synthetic movie and what it shows.

    Attributes
    ----------
    movie : T frames of (H, W), uint8 or uint16.
    truth : (T, H, W) uint8: 0 electrolyte or background, 1 electrode, 2 Li or particle.
    scenario : ``"battery"`` or ``"nanoparticles"``.
    parameters : arguments and options, and how the movie was recorded: ``means`` and ``sigmas`` of the phases
        (in the order of ``labels``), ``gain`` (T,), ``pivot``, ``trend_terms``, ``trend_coef`` (T, 5) in grey
        levels of 8-bit data; ``scale``, the stored grey levels in one of those (257 for 16 bits); ``drift_px``
        (T, 2) (down, right); ``refocus`` frames; ``charge`` (T,), Li relative to its peak (battery).
        A pixel's expected value is ``scale * (pivot + gain * (mean + trend - pivot))``.
    foreground_value : label of the phase that is to be quantified.
    """

    movie: ArrayMovie
    truth: np.ndarray
    scenario: str
    parameters: dict[str, Any]
    foreground_value: int = 2

    @property
    def truth_share(self) -> np.ndarray:
        """(T,) share of the frame's pixels that are Li or particle, 0 to 1."""
        flat = self.truth.reshape(len(self.truth), -1)
        return np.array([np.count_nonzero(frame == self.foreground_value) / frame.size for frame in flat])


def simulate(
    scenario: str = "battery",
    *,
    shape: tuple[int, int] = (256, 256),
    n_frames: int = 60,
    seed: int = 0,
    bits: int = 8,
    difficulty: str = "easy",
    pixel_size_um: float | None = 0.01,
    frame_time_s: float | None = 0.5,
    **options: Any,
) -> Simulation:
    """Make an operando movie whose every pixel is known; a pure function of its arguments.

    Parameters
    ----------
    scenario : ``"battery"``: a dark half-disc electrode in grey electrolyte, bright Li that grows and is stripped,
        dead Li left. ``"nanoparticles"``: particles that nucleate, grow and coalesce on a film.
    shape, n_frames, seed : (H, W), each at least 16; T, at least 1; whole number from 0.
    bits : 8 or 16; 16-bit grey levels are 257 times the 8-bit ones, with the noise digitised more finely.
    difficulty : ``"easy"``, ``"mid"`` or ``"hard"``: separation of the phases (METHOD.md section 6), width of the
        thinnest features, trend and contrast steps.
    pixel_size_um, frame_time_s : calibration of the movie; None: not calibrated.
    **options : any field of `BatteryOptions` or `ParticleOptions`, in place of the difficulty's.

    Raises
    ------
    ConfigError
        For an unknown name or a value out of range.
    """
    height, width, n_frames, seed = check_movie(shape, n_frames, seed, bits)
    for name, value in (("pixel_size_um", pixel_size_um), ("frame_time_s", frame_time_s)):
        if value is not None:
            check_within(name, value, 0, 1e6, open_low=True)
    chosen = scene_options(scenario, difficulty, options)
    stack, truth, described = _record(chosen, (height, width), n_frames, seed, bits)
    title = f"{scenario}-{difficulty}-{seed}"
    movie = ArrayMovie(stack, name=title, pixel_size_um=pixel_size_um, frame_time_s=frame_time_s)
    arguments = {"shape": (height, width), "n_frames": n_frames, "seed": seed, "bits": bits, "difficulty": difficulty}
    return Simulation(movie, truth, scenario, arguments | described)


def _record(
    options: BatteryOptions | ParticleOptions, shape: tuple[int, int], n_frames: int, seed: int, bits: int
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Movie (T, H, W), truth (T, H, W) and the parameters of the scene and the recording."""
    course = conditions(options, n_frames, shape, seed)
    n_empty, margin = n_empty_frames(options, n_frames), margin_of(course)
    scene: BatteryScene | ParticleScene
    if isinstance(options, BatteryOptions):
        scene = BatteryScene(options, shape, n_frames, n_empty, margin, seed)
    else:
        scene = ParticleScene(options, shape, n_frames, n_empty, margin, seed)
    recorder = Recorder(options, course, shape, margin, seed, bits, scene.labels(scene.fullest))
    stack = np.empty((n_frames, *shape), dtype=np.uint8 if bits == 8 else np.uint16)
    truth = np.empty((n_frames, *shape), dtype=np.uint8)
    for t in range(n_frames):
        truth[t] = scene.labels(t)[recorder.window(t)]
        stack[t] = recorder.frame(t, truth[t], scene.overlay(t))
    described = _describe(options, course, recorder.scale, n_empty)
    if isinstance(scene, BatteryScene):
        described["charge"] = scene.charge
    return stack, truth, described


def _describe(options: SceneOptions, course: Conditions, scale: int, n_empty: int) -> dict[str, Any]:
    return asdict(options) | {
        "labels": options.truth_of_phase,
        "n_empty": n_empty,
        "scale": scale,
        "trend_terms": TREND,
        "trend_coef": course.trend_coef,
        "gain": course.gain,
        "pivot": course.pivot,
        "drift_px": course.drift_px,
        "refocus": course.refocus,
    }
