"""Results made up for the report's tests: a phantom battery movie, studies, analyses, awkward cases, a page reader."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from gmrm_gpu.config import AnalysisConfig, MixtureConfig, PhaseConfig, QuantityConfig, StudyConfig
from gmrm_gpu.results import AnalysisResult, Examples, FitStatus, MixtureFit, MovieInfo, Scale, StudyResult

MEANS, SIGMAS = np.array([45.0, 118.0, 172.0]), np.array([7.0, 9.0, 12.0])
TERMS, COEF = ((1, 0), (0, 1)), np.array([12.0, -6.0])


def phantom(shape=(48, 64), n_frames=6, seed=0, dtype=np.uint8):
    """Half-disc electrode (phase 0), electrolyte (1), a bright blob that grows and shrinks (2), noise and a trend."""
    rng = np.random.default_rng(seed)
    height, width = shape
    y, x = np.mgrid[0:height, 0:width]
    electrode = (x - width / 2) ** 2 + (y - height) ** 2 < (0.38 * width) ** 2
    phases = np.empty((n_frames, *shape), np.uint8)
    for t in range(n_frames):
        grown = 0.10 * width * np.sin(np.pi * (t + 0.5) / n_frames)
        angle = np.arctan2(height - y, x - width / 2)
        radius = 0.38 * width + grown * (1 + 0.6 * np.sin(9 * angle) + 0.4 * np.sin(23 * angle + 1))
        li = ((x - width / 2) ** 2 + (y - height) ** 2 < radius**2) & ~electrode
        phases[t] = np.where(electrode, 0, np.where(li, 2, 1))
    trend = one_fit().trend(shape)
    movie = MEANS[phases] + SIGMAS[phases] * rng.normal(size=phases.shape) + trend
    return phases, (np.clip(np.round(movie), 0, 255) if np.issubdtype(dtype, np.integer) else movie).astype(dtype)


def one_fit(weights=(0.2, 0.7, 0.1), **changes: Any) -> MixtureFit:
    values = {
        "weights": np.array(weights, dtype=float),
        "means": MEANS,
        "sigmas": SIGMAS,
        "coef": COEF,
        "log_likelihood": np.array(-1e4),
        "n_iter": np.array(20),
        "n_samples": np.array(3072),
        "status": np.array(FitStatus.CONVERGED, np.uint8),
        "terms": TERMS,
    }
    return MixtureFit(**(values | changes))


def make_examples(phases, movie, *, rate=0.1, seed=1, pick=6) -> Examples:
    rng = np.random.default_rng(seed)
    n = len(movie)
    frames = np.unique(np.linspace(0, n - 1, min(pick, n)).round().astype(int))
    true = phases[frames]
    noisy = np.where(rng.random(true.shape) < 0.03, 2, true)
    weak, strong = np.where(rng.random(true.shape) < 0.01, 2, true), true.copy()
    strong[:, ::9, ::7] = 1
    binary = [(labels == 2).astype(np.uint8) + 1 for labels in (noisy, weak, weak, strong)]
    visited = rng.random(true.shape) < rate
    fits = [one_fit(np.bincount(p.ravel(), minlength=3) / p.size) for p in true]
    return Examples(
        frames=np.asarray(frames),
        images=movie[frames],
        labels_raw=binary[0],
        labels=binary[1],
        settings=((5.0, 0.05), (20.0, 0.2)),
        labels_settings=np.stack(binary[2:]),
        sampled_rate=rate,
        labels_sampled=np.where(visited, binary[1], 0).astype(np.uint8),
        fits=MixtureFit.stack(fits),
        foreground=np.tile([False, False, True], (len(frames), 1)),
    )


def make_info(movie, **changes: Any) -> MovieInfo:
    n, *shape = movie.shape
    values = {"name": "phantom", "n_frames": n, "shape": tuple(shape), "dtype": str(movie.dtype)}
    return MovieInfo(**(values | {"n_pixels": shape[0] * shape[1]} | changes))


def make_study(
    *,
    rates=(0.1, 0.05, 0.01),
    shape=(48, 64),
    n_frames=6,
    truth=True,
    calibrated=False,
    b=30,
    dtype=np.uint8,
    pick=6,
    method="paper",
):
    phases, movie = phantom(shape, n_frames, dtype=dtype)
    share = (phases == 2).mean(axis=(1, 2))
    rng = np.random.default_rng(5)
    n_pixels = shape[0] * shape[1]
    shares, status, lonely = {}, {}, {}
    for rate in rates:
        sd = np.sqrt(0.02 / (rate * n_pixels)) + 0.01 * share
        shares[rate] = share + 0.0002 / rate + sd * rng.normal(size=(b, n_frames))
        status[rate] = np.zeros((b, n_frames), np.uint8)
        lonely[rate] = np.zeros((b, n_frames), np.int64)
    quantity = (
        QuantityConfig(pixel_size_um=0.005, thickness_um=0.5, frame_time_s=0.5) if calibrated else QuantityConfig()
    )
    scale = Scale(n_pixels, 0.005**2, 0.005**2 * 0.5) if calibrated else Scale(n_pixels)
    return StudyResult(
        movie=make_info(movie),
        config=StudyConfig(
            AnalysisConfig(mixture=MixtureConfig(n_components=3), quantity=quantity, method=method),
            rates,
            (b,) * len(rates),
            (method,),
        ),
        scale=scale,
        frame=np.arange(n_frames),
        time_s=0.5 * np.arange(n_frames) if calibrated else None,
        shares=shares,
        status=status,
        without_neighbours=lonely,
        reference=share + 0.001,
        reference_status=np.zeros(n_frames, np.uint8),
        truth=share if truth else None,
        examples=make_examples(phases, movie, pick=pick),
        provenance={"command": "gmrm-gpu study movie.tif", "device": "cpu", "versions": {"numpy": "2.4"}, "seed": 0},
    )


def both_methods(**changes: Any) -> StudyResult:
    """A study by the method paper that carries one by the method movie: fewer replicates, a narrower band."""
    paper, movie = make_study(**changes), make_study(**({"b": 10} | changes), method="movie")
    truth = paper.reference - 0.001
    shares = {rate: truth + 0.1 * (share - truth) for rate, share in movie.shares.items()}
    movie = dataclasses.replace(movie, shares=shares, reference=truth + 1e-4)
    config = dataclasses.replace(paper.config, methods=("paper", "movie"))
    return dataclasses.replace(paper, config=config, others=(movie,))


DECISION = "Foreground at grey level 172: the component at grey level 118 never becomes rare, so it is the background."


def paper_config(**changes: Any) -> AnalysisConfig:
    return AnalysisConfig(**({"mixture": MixtureConfig(n_components=3), "method": "paper"} | changes))


def make_movie_analysis(*, n_frames=6, rate=0.1, **changes: Any) -> AnalysisResult:
    """One sub-sampled movie fitted as a whole, with drifting frames."""
    config = AnalysisConfig(mixture=MixtureConfig(n_components=3)).with_rate(rate)
    fits = MixtureFit.stack(one_fit(means=MEANS + 0.2 * t, coef=COEF + 0.1 * t) for t in range(n_frames))
    share = make_analysis(n_frames=n_frames).share
    small = {f"{name}_sd": np.full(n_frames, sd) for name, sd in (("count", 0.02), ("assisted", 0.01))}
    small |= {"posterior_sd": np.full(n_frames, 0.018), "smoothed_sd": np.full(n_frames, 0.005)}
    small |= {"share_sd": small["smoothed_sd"], "volume_share_sd": small["smoothed_sd"]}
    rough = share + 0.01 * np.sin(np.arange(n_frames))
    values = {"config": config, "fits": fits, "count": rough, "share_raw": rough, "posterior": rough}
    values |= {"assisted": share, "smoothed": share, "provenance": {"device": "cpu", "foreground": DECISION}}
    return make_analysis(n_frames=n_frames, **(values | small | changes))


def make_analysis(*, shape=(48, 64), n_frames=6, config=None, **changes: Any) -> AnalysisResult:
    """All frames fitted by themselves."""
    phases, movie = phantom(shape, n_frames)
    share = changes.get("share", (phases == 2).mean(axis=(1, 2)))
    missing = np.full(n_frames, np.nan)
    config = changes.pop("config", None) or config or paper_config()
    values = {
        "movie": make_info(movie),
        "config": config,
        "scale": Scale(shape[0] * shape[1]),
        "frame": np.arange(n_frames),
        "time_s": None,
        "share": share,
        "volume_share": share,
        "share_raw": share * 1.2 + 0.01,
        "count": share,
        "posterior": share * 1.1,
        **dict.fromkeys(("share_sd", "volume_share_sd", "count_sd", "posterior_sd"), missing),
        **dict.fromkeys(("assisted", "assisted_sd", "smoothed", "smoothed_sd"), missing),
        "n_samples": np.full(n_frames, 300),
        "n_without_neighbours": np.zeros(n_frames, np.int64),
        "visited_share": np.full(n_frames, config.sampling.rate),
        "status": np.zeros(n_frames, np.uint8),
        "fits": MixtureFit.stack([one_fit()] * n_frames),
        "foreground": np.tile([False, False, True], (n_frames, 1)),
        "examples": make_examples(phases, movie),
        "provenance": {"device": "cpu"},
    }
    return AnalysisResult(**(values | changes))


class Page(HTMLParser):
    """Tags, addresses and visible text of a page; unclosed or crossed tags are errors."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            assert "url(" not in data
            assert "@import" not in data
            return
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def nan_fit(examples: Examples) -> Examples:
    """All components of the first fit lost, the last component of the others dropped."""
    fits = examples.fits
    means, sigmas, weights = fits.means.copy(), fits.sigmas.copy(), fits.weights.copy()
    means[:, 2], sigmas[:, 2], weights[:, 2] = np.nan, np.nan, 0
    means[0], sigmas[0], weights[0] = np.nan, np.nan, np.nan
    coef, status = fits.coef.copy(), fits.status.copy()
    coef[0], status[0] = np.nan, FitStatus.DEGENERATE
    fits = dataclasses.replace(fits, means=means, sigmas=sigmas, weights=weights, coef=coef, status=status)
    return dataclasses.replace(examples, fits=fits)


def zero_li(study: StudyResult) -> StudyResult:
    examples = study.examples
    nothing = {name: np.minimum(getattr(examples, name), 1) for name in ("labels_raw", "labels", "labels_settings")}
    nothing["labels_sampled"] = np.minimum(examples.labels_sampled, 1)
    examples = dataclasses.replace(examples, foreground=np.zeros_like(examples.foreground), **nothing)
    zeros = {rate: np.zeros_like(values) for rate, values in study.shares.items()}
    zero = np.zeros_like(study.reference)
    return dataclasses.replace(study, shares=zeros, reference=zero, truth=zero, examples=examples)


def all_failed(study: StudyResult) -> StudyResult:
    failed = {rate: np.full_like(values, np.nan) for rate, values in study.shares.items()}
    status = {rate: np.full_like(values, FitStatus.TOO_FEW) for rate, values in study.status.items()}
    reference = np.full_like(study.reference, np.nan)
    return dataclasses.replace(
        study, shares=failed, status=status, reference=reference, examples=nan_fit(study.examples)
    )


def with_examples(study: StudyResult, **changes: Any) -> StudyResult:
    return dataclasses.replace(study, examples=dataclasses.replace(study.examples, **changes))


def no_trend(study: StudyResult) -> StudyResult:
    fits = dataclasses.replace(study.examples.fits, coef=np.zeros((len(study.examples.frames), 0)), terms=())
    return with_examples(study, fits=fits)


def flat(study: StudyResult) -> StudyResult:
    fits = dataclasses.replace(study.examples.fits, coef=np.zeros_like(study.examples.fits.coef))
    return with_examples(study, images=np.full_like(study.examples.images, 7), fits=fits)


def excluded(study: StudyResult) -> StudyResult:
    valid = np.ones(study.movie.shape, bool)
    valid[:10, :20] = False
    study = dataclasses.replace(study, movie=dataclasses.replace(study.movie, n_pixels=int(valid.sum())))
    images = study.examples.images.astype(np.float32)
    images[:, ~valid] = np.nan
    return with_examples(study, valid=valid, images=images)


def odd_names(study: StudyResult) -> StudyResult:
    names = ("anode", "$x^2_ electrolyte", "锂 <li> with a very long name")
    phases = PhaseConfig(",".join(names))
    config = dataclasses.replace(study.config, analysis=dataclasses.replace(study.config.analysis, phases=phases))
    study = dataclasses.replace(study, config=config)
    return with_examples(study, phase_names=names, foreground_index=2)


def small(**changes: Any) -> StudyResult:
    """A study with few panels, quick to draw."""
    return make_study(**({"rates": (0.1,), "pick": 2} | changes))


AWKWARD = {
    "one frame": lambda: small(n_frames=1),
    "one frame, one replicate": lambda: small(n_frames=1, b=1, rates=(0.3,)),
    "everything failed": lambda: all_failed(small()),
    "no Li at all": lambda: zero_li(small()),
    "no examples": lambda: dataclasses.replace(small(), examples=None),
    "empty examples": lambda: with_examples(small(), frames=np.zeros(0, int)),
    "wide frame": lambda: small(shape=(9, 130), calibrated=True),
    "tall frame": lambda: small(shape=(130, 9), calibrated=True),
    "one row": lambda: small(shape=(1, 40)),
    "large frame": lambda: small(shape=(601, 1203), n_frames=1, calibrated=True),
    "float images, negative reference": lambda: dataclasses.replace(
        small(dtype=np.float32), reference=np.full(6, -0.1)
    ),
    "uint16 images without trend": lambda: no_trend(small(dtype=np.uint16)),
    "lost components": lambda: with_examples(small(), fits=nan_fit(small().examples).fits),
    "constant image": lambda: flat(small()),
    "excluded pixels and NaN": lambda: excluded(small()),
    "odd phase names": lambda: odd_names(small()),
    "no settings": lambda: with_examples(small(), settings=(), labels_settings=np.zeros((0, 2, 48, 64), np.uint8)),
    "both methods, one frame": lambda: both_methods(rates=(0.1,), n_frames=1, pick=1),
    "both methods, everything failed": lambda: dataclasses.replace(
        all_failed(small()), others=(all_failed(small(method="movie")),)
    ),
    "the method movie alone": lambda: small(method="movie"),
    "time unknown in places": lambda: dataclasses.replace(small(), time_s=np.array([0, 1, np.nan, 3, 4, 5e4])),
}


def read(page: Path) -> Page:
    """The page of a report file."""
    return Page(page.read_text("utf-8"))
