"""Shared fixtures, and the count of GPU tests that did not run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import devices
import pytest

from gmrm_gpu.backend import n_cores

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real recordings beside the repository; tests that need one are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real recordings (../shared/data) are not on this machine")
    return SHARED_DATA


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file (or folder) of each format, all holding the same movie, `movies.STACK`."""
    from movies import exact_sources

    return exact_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """``counted("store damage", 200)``: so many cases of a kind were tried; the run prints the sums."""

    def count(what: str, n: int) -> None:
        record_property("cases", (what, n))

    return count


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What ``-n auto`` is: the cores that this process may use, eight at most as each takes a gigabyte; a GPU, one."""
    return 1 if devices.ON_GPU else min(n_cores(), 8)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "each_device" in metafunc.fixturenames:
        alone = metafunc.definition.get_closest_marker("harness") is not None and not devices.ON_GPU
        metafunc.parametrize("each_device", ["harness"] if alone else devices.EVERY, indirect=True)


@pytest.fixture
def each_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test of kernels everywhere that `devices.kernel_device` can make a device."""
    monkeypatch.setattr(devices, "on", request.param)
    return request.param


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = {kind: terminalreporter.stats.get(kind, []) for kind in ("skipped", "passed", "failed")}
    gpu = {kind: sum("gpu" in r.keywords and r.when != "teardown" for r in found) for kind, found in reports.items()}
    if any(gpu.values()):
        ran = gpu["passed"] + gpu["failed"]
        terminalreporter.write_line(f"GPU tests: {gpu['skipped']} skipped, {ran} run")
    _write_cases(terminalreporter)


def _write_cases(terminalreporter: pytest.TerminalReporter) -> None:
    """How many cases of each kind the passed tests under tests/reliability have tried."""
    tried: Counter[str] = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties if report.when == "call" else ():
            if name == "cases":
                tried[value[0]] += value[1]
    for what, n in sorted(tried.items()):
        terminalreporter.write_line(f"cases tried: {n:6,} {what}")
