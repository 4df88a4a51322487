"""This package: array operations by NumPy, functions compiled for the CPU, and CUDA kernels where there is a GPU."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np

import gmrm_gpu as gg
from gmrm_gpu.backend import make_backend, probe_gpu
from gmrm_gpu.config import ENGINES
from gmrm_gpu.engines.fused.draw import DrawJob, prepare_draw, run_draw
from gmrm_gpu.engines.fused.fit import FitArrays, FitKeys, run_fit
from gmrm_gpu.engines.fused.plan import BlockSize, plan_fits
from gmrm_gpu.engines.fused.support import fused_obstacle
from gmrm_gpu.mixture import fit_mixture
from gmrm_gpu.results import MixtureFit
from gmrm_gpu.sampling import Sampler

from .density import Mixture
from .measure import MAX_ITERATIONS, SIGMA_FLOOR, Found, Peer, stopwatch
from .scenes import START, TERMS, TREND, Data, K
from .script import start

NAME = "gmrm_gpu"
_FLOAT32 = make_backend(np, dtype="float32")


def config_of(tol: float, trend: str = TREND, histogram: bool = False) -> gg.MixtureConfig:
    """One start and no comparison of starts."""
    return gg.MixtureConfig(K, trend, starts=(START,), tol=tol, max_iter=MAX_ITERATIONS, histogram=histogram)


def found_of(fit: MixtureFit, seconds: float) -> Found:
    """The first of some fits."""
    slopes = fit.coef[0] if fit.terms else np.zeros(len(TERMS))
    return Found(seconds, Mixture(fit.weights[0], fit.means[0], fit.sigmas[0], slopes), iterations=int(fit.n_iter[0]))


def fit_by_numpy(data: Data, tol: float, **settings: Any) -> Found:
    """From grey levels and places to parameters, float32; settings: of `config_of`."""
    values, positions = data.values[None], data.positions[None]
    config = config_of(tol, **settings)
    with stopwatch() as seconds:
        fit = fit_mixture(values, positions, data.scene.shape, config, sigma_floor=SIGMA_FLOOR, backend=_FLOAT32)
    return found_of(fit, seconds())


def fit_by_kernels(data: Data, tol: float, *, where: str, **settings: Any) -> Found:
    """The fit kernel on the samples that the draw kernel drew, the same pixels; until the device is done."""
    device, wait = device_of(where)
    analysis = gg.AnalysisConfig(config_of(tol, **settings), method="paper")
    analysis = analysis.with_rate(len(data.positions) / data.scene.image.size).resolved
    size = BlockSize(1, 1, Sampler(data.scene.shape, analysis.sampling), np.dtype(np.uint8), 1)
    first = np.zeros(1, dtype=np.uint32)
    drawn = prepare_draw(DrawJob(size.sampler, first, first, np.dtype(np.uint8)), device)
    run_draw(drawn, device.asarray(data.scene.image[None]), 0, device)
    launch = plan_fits(size, analysis).launch
    resident = device.resident_blocks(launch.kernel, launch.threads, launch.shared_bytes)
    plan = plan_fits(size, analysis, resident if launch.cooperative else None)
    keys = FitKeys(analysis.sampling.seed, analysis.sampling.rate, *drawn.inputs[-2:])
    out = FitArrays.empty(1, analysis.mixture, device)
    more = {"keys": keys, "sigma_floor": SIGMA_FLOOR, "out": out, "device": device}
    wait()
    with stopwatch() as seconds:
        run_fit(plan, drawn.samples, data.scene.shape, analysis.mixture, **more)
        wait()
    return found_of(out.to_host(analysis.mixture.terms, device), seconds())


def analyze_whole(data: Data, tol: float) -> Found:
    """All of an analysis of the frame: read, fit, label, and the vote of neighbours within three pixels."""
    analysis = gg.AnalysisConfig(
        config_of(tol),
        phases=gg.PhaseConfig("electrode,electrolyte,gel,li"),
        correction=gg.CorrectionConfig(radius=3, gamma=0.5, window="spatial", sides="both"),
        compute=gg.ComputeConfig(device="cpu", n_threads=1),
        method="paper",
    )
    with stopwatch() as seconds:
        result = gg.analyze(data.scene.image[None], analysis)
    return Found(seconds(), labels=np.asarray(result.labels[0]).astype(int) - 1)


@lru_cache
def device_of(where: str) -> tuple[Any, Any]:
    """A device for kernels, and what waits until it is done: ``"cpu"``, one thread, or ``"gpu"``."""
    if where == "gpu":
        from benchmarks.gpu.rig import open_gpu

        rig = open_gpu()
        return rig.device, rig.clock.wait
    from gmrm_gpu.engines.compiled.device import CompiledDevice

    return CompiledDevice(1), lambda: None


def missing_compiled(histogram: bool = False) -> str | None:
    """Why the compiled functions cannot run."""
    if "compiled" not in ENGINES:
        return "there is no compiled engine"
    from gmrm_gpu.engines.compiled import compiled_obstacle

    if (obstacle := compiled_obstacle()) is not None:
        return obstacle
    try:
        from gmrm_gpu.engines.compiled import draw  # noqa: F401
        from gmrm_gpu.engines.compiled.fit import fit  # noqa: F401
    except ImportError:
        return "the compiled engine has no fit yet"
    return missing_settings(histogram)


def missing_gpu(histogram: bool = False) -> str | None:
    """Why the CUDA kernels cannot run."""
    usable, reason = probe_gpu(0)
    return missing_settings(histogram) if usable else reason


def missing_settings(histogram: bool) -> str | None:
    """Why no kernel can do it so."""
    analysis = gg.AnalysisConfig(config_of(1e-8, histogram=histogram), method="paper").resolved
    obstacle = fused_obstacle(analysis, (512, 512), np.dtype(np.uint8))
    return None if obstacle is None else f"not with {obstacle}"


def _peers(label: str, fit: Any, missing: Any) -> tuple[Peer, ...]:
    """As it is; with the histogram; and without the trend, the model of programs that know none."""
    about = {"version": lambda: gg.__version__, "batches": True}
    settled = partial(missing, histogram=True)
    return (
        Peer(f"{NAME}, {label}", fit, missing, trend="yes", model="trend", **about),
        Peer(f"{NAME}, {label}, histogram", partial(fit, histogram=True), settled, trend="yes", model="trend", **about),
        Peer(
            f"{NAME}, {label}, no trend", partial(fit, trend="none"), missing, trend="left out", model="none", **about
        ),
    )


PEERS = (
    *_peers("NumPy", fit_by_numpy, lambda histogram=False: None),
    *_peers("compiled", partial(fit_by_kernels, where="cpu"), missing_compiled),
    Peer(
        f"{NAME}, with the vote",
        analyze_whole,
        version=lambda: gg.__version__,
        trend="yes",
        whole=True,
        batches=True,
        note="a whole analysis, labels hear their neighbours too; stopped at 1e-8",
    ),
    *_peers("GPU", partial(fit_by_kernels, where="gpu"), missing_gpu),
)

if __name__ == "__main__":
    start(PEERS, __spec__)
