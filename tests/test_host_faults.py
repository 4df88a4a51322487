"""Faults that are planted in small kernels, and seen by the CPU harness."""

import numpy as np
import pytest
from host import build
from host.cases import THREADS, grid_barrier, launch, run, source
from host.device import HostDevice

pytestmark = pytest.mark.skipif(build.missing() is not None, reason=str(build.missing()))

CARVED = "SHARED_MEMORY(memory); Carver carve(memory); int* a = carve.take<int>(N); int* b = carve.take<int>(32);"
FAULTS = {
    "divergent barrier: 1 threads of the block have ended": "if (threadIdx.x == 0) return; __syncthreads();",
    "divergent barrier: 63 threads of the block wait at another one": """
        if (threadIdx.x == 63) {
            __syncthreads();
        } else {
            __syncthreads();
        }""",
    "missing lanes: the thread is at a barrier of the block, while lanes 0x0000000f wait": """
        if (threadIdx.x % 32 < 4) out[0] = __shfl_sync(FULL_MASK, x[0], 0);
        __syncthreads();""",
    "missing lanes: 0x0000000f wait at a barrier of the block": """
        if (threadIdx.x >= 4) out[0] = __shfl_sync(FULL_MASK, x[0], 0);
        __syncthreads();""",
    "missing lanes: the thread ended, while lanes 0x00000fff wait": "if (threadIdx.x < 12) __syncwarp();",
    "__ballot_sync missing lanes: 0x00000001 have ended": "if (threadIdx.x > 0) out[0] = __ballot_sync(FULL_MASK, 1);",
    "missing lanes: the thread is in another collective": """
        if (threadIdx.x == 3) __syncwarp();
        else out[0] = __any_sync(FULL_MASK, 1);""",
    "the lane is not in its own mask 0x0000fffe": "__syncwarp(0xfffe);",
    "reads lane 9, which is not in the mask": "if (threadIdx.x < 8) out[0] = __shfl_sync(0xff, x[0], 9);",
    "lane or distance 32 is out of range": "out[0] = __shfl_sync(FULL_MASK, x[0], 32);",
    "lane or distance -1 is out of range": "out[0] = __shfl_up_sync(FULL_MASK, x[0], x[0] - 1);",
    "a shuffle of width 12": "out[0] = __shfl_sync(FULL_MASK, x[0], 0, 12);",
    "something was written behind array 0 of shared": CARVED.replace("N", "33") + "a[33] = 0;",
    "something was written behind array 1 of shared": CARVED.replace("N", "33") + "b[32 + threadIdx.x / 64] = 0;",
    "array 1 ends at byte 288, but the launch declares 272": CARVED.replace("N", "40") + "a[0] = b[0];",
    "something was written behind the 272 bytes": "SHARED_MEMORY(memory); memory[272] = 0;",
    "something was written outside of argument 1": "out[64] = 7;",
    "something was written outside of argument 0": "const_cast<int*>(x)[-1] = 7;",
    "segmentation fault, after line": "__syncthreads(); out[1ll << 40] = 1;",
    "segmentation fault": "volatile char large[1 << 20]; large[x[0]] = 1; out[0] = large[x[0]];",
    "division by zero": "out[0] = 7 / x[0];",
    "gives up": "if (x[threadIdx.x] == 50) __trap();",
    "deadlock: the threads that can go on spin": "while (atomicAdd(out, 0) != 1) __nanosleep(10);",
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_fault_is_an_error_that_says_what_it_is(message):
    expected = message.replace("__ballot_sync", "a vote:")
    with pytest.raises(RuntimeError) as error:
        run(FAULTS[message], shared=272)
    assert expected in str(error.value)
    assert run("out[threadIdx.x] = x[threadIdx.x];") == list(range(THREADS))  # and the next launch is well


def test_an_error_says_where():
    with pytest.raises(
        RuntimeError, match=r"kernel k, block 2, thread 64: .*\n  line \d+: __syncthreads\(\);  // here"
    ):
        launch(
            source("if (blockIdx.x < 2 || threadIdx.x < 64) return;\n__syncthreads();  // here", "", "k"),
            blocks=3,
            threads=96,
        )


def test_a_loop_without_end_is_given_up():
    body = source("while (atomicAdd(out, 0) >= 0);", "int* out")
    device = HostDevice(seconds=1)
    with pytest.raises(RuntimeError, match="no end in sight"):
        launch(body, device.zeros((1,), np.int32), device=device)


def test_shared_memory_starts_as_nan_in_every_block():
    kernel = source(
        """
        SHARED_MEMORY(memory);
        double* a = Carver(memory).take<double>(64);
        out[blockIdx.x * 64 + threadIdx.x] = a[threadIdx.x];
        a[threadIdx.x] = 1;""",
        "double* out",
    )
    device = HostDevice()
    out = device.zeros((2, 64), np.float64)
    launch(kernel, out, device=device, blocks=2, threads=64, shared=512)
    assert np.isnan(out).all()


def test_shared_memory_may_be_carved_anew():
    body = (
        CARVED.replace("N", "20")
        + """
        a[threadIdx.x % 20] = b[threadIdx.x % 32] = 0;
        __syncthreads();
        int* whole = Carver(memory).take<int>(64);
        whole[threadIdx.x] = x[threadIdx.x];
        __syncthreads();
        out[threadIdx.x] = whole[63 - threadIdx.x];"""
    )
    assert run(body, shared=512) == list(range(THREADS))[::-1]
    with pytest.raises(RuntimeError, match="behind array 0"):
        run(body.replace("whole[threadIdx.x]", "whole[threadIdx.x + 1]"), shared=512)


ADDRESS_FAULTS = {
    "heap-buffer-overflow": "out[threadIdx.x] = x[threadIdx.x + 1];",
    "READ of size 4": "out[threadIdx.x] = x[int(threadIdx.x) - 1];",
    "use-after-poison": CARVED.replace("N", "33") + "out[threadIdx.x] = a[33];",
    "out of bounds": "int local[4]; local[threadIdx.x % 5] = 1; out[threadIdx.x] = local[x[0]];",
    "signed integer overflow": "out[0] = 0x7fffffff + x[1];",
    "shift exponent": "out[0] = 1 << (x[0] + 32);",
    "is outside the range of representable values": "out[0] = int(1e10f + x[0]);",
}


@pytest.mark.parametrize("message", ADDRESS_FAULTS)
def test_address_sanitizer_sees(message):
    with pytest.raises(RuntimeError) as error:
        run(ADDRESS_FAULTS[message], "asan", shared=272)
    assert message in str(error.value)
    assert "\n  line " in str(error.value)


def test_reports_name_the_thread():
    with pytest.raises(RuntimeError, match=r"in block 1, thread 5\b"):
        run("if (blockIdx.x == 1 && threadIdx.x == 5) out[x[5] + 60] = 0;", "asan", blocks=2)
    with pytest.raises(RuntimeError, match="'block 1, thread 5'"):
        run("if (blockIdx.x == 1 && threadIdx.x / 2 == 2) out[0] = 0;", "tsan", blocks=2)


# thread 0 hands a value to the block: in order nobody notices that the barrier is missing
HANDED = """
    SHARED_MEMORY(memory);
    int* a = Carver(memory).take<int>(4);
    if (threadIdx.x == 0) a[0] = x[5];
    SYNC
    out[threadIdx.x] = a[0];"""


def handed(sync, sanitize="plain", schedule="order"):
    return run(HANDED.replace("SYNC", sync), sanitize, schedule, shared=16)


def test_a_missing_barrier_gives_wrong_answers_out_of_order():
    assert handed("") == [5] * THREADS
    assert handed("", schedule="reverse") != [5] * THREADS
    assert sum(handed("", schedule=f"random:{seed}") != [5] * THREADS for seed in range(20)) > 15


@pytest.mark.parametrize(
    ("sync", "schedule"),
    [("", "order"), ("", "reverse"), ("__syncwarp();", "order"), ("__any_sync(FULL_MASK, 1);", "order")],
)
def test_thread_sanitizer_sees_a_missing_barrier_in_every_schedule(sync, schedule):
    with pytest.raises(RuntimeError, match="data race"):
        handed(sync, "tsan", schedule)


def test_thread_sanitizer_is_content_with_barriers_and_local_arrays():
    assert handed("__syncthreads();", "tsan") == [5] * THREADS
    body = "int local[4]; int* volatile p = local; p[0] = 1; if (blockIdx.x) out[threadIdx.x] = p[0];"
    assert run(body, "tsan", blocks=2) == [1] * THREADS


def test_of_the_warp_collectives_only_syncwarp_orders_memory():
    body = "if (threadIdx.x == 31) out[0] = 7; SYNC; if (threadIdx.x == 0) out[1] = out[0];"
    assert run(body.replace("SYNC", "__syncwarp()"), "tsan", "reverse", threads=32)[1] == 7
    with pytest.raises(RuntimeError, match="data race"):
        run(body.replace("SYNC", "__any_sync(FULL_MASK, 1)"), "tsan", "reverse", threads=32)


@pytest.mark.parametrize("sync", ["__syncthreads();", "__syncwarp();"])
def test_thread_sanitizer_sees_a_second_barrier_missing(sync):
    body = HANDED.replace("SYNC", sync) + f"AGAIN\n    if (threadIdx.x == 0) a[0] = 1; {sync}"
    with pytest.raises(RuntimeError, match="data race"):
        run(body.replace("AGAIN", ""), "tsan", threads=32, shared=16)
    assert run(body.replace("AGAIN", sync), "tsan", threads=32, shared=16)[:32] == [5] * 32


def test_thread_sanitizer_sees_a_race_between_blocks():
    body = "atomicAdd(out, 1); if (threadIdx.x == 0) out[1 + blockIdx.x DIVIDED] = 1;"
    with pytest.raises(RuntimeError, match="data race"):
        run(body.replace("DIVIDED", "/ 2"), "tsan", blocks=2, threads=32)
    assert run(body.replace("DIVIDED", ""), "tsan", blocks=2, threads=32)[:3] == [63, 1, 1]


@pytest.mark.parametrize("fence", ["", "__threadfence_block();"])
def test_thread_sanitizer_sees_a_missing_fence(fence):
    with pytest.raises(RuntimeError, match="data race"):
        grid_barrier(HostDevice("tsan"), fence)
