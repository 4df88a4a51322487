"""Shared fixtures, and the count of GPU tests that did not run."""

from __future__ import annotations

from pathlib import Path

import devices
import pytest

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
