"""One core, fixed seeds. GMRM_BENCH_TOY=1 shrinks every benchmark, so that the tests can run each of them once."""

import os

import pytest


@pytest.fixture(autouse=True)
def one_core():
    """Bind to a single core, so that BLAS threads of a baseline do not blur the comparison."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="session")
def toy():
    """Whether sizes are shrunk."""
    return bool(os.environ.get("GMRM_BENCH_TOY"))
