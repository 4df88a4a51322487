"""The CPU harness of the CUDA kernels runs them right, and checks what a launch is given."""

import numpy as np
import pytest
from host import build
from host.cases import SANITIZERS, SCHEDULES, THREADS, grid_barrier, launch, run, source
from host.device import HostDevice

from gmrm_gpu.engines.fused.launch import Launch
from gmrm_gpu.engines.source import shared_bytes

pytestmark = pytest.mark.skipif(build.missing() is not None, reason=str(build.missing()))

# ---- right answers

SUMS = source(
    """
    SHARED_MEMORY(memory);
    Carver carve(memory);
    double* part = carve.take<double>(n_warps());
    double* total = carve.take<double>(1);
    double sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[i64(blockIdx.x) * n + i];
    sum = warp_sum(sum);
    if (lane_id() == 0) part[warp_id()] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        total[0] = 0;
        for (int w = 0; w < n_warps(); w++) total[0] += part[w];
    }
    __syncthreads();
    if (threadIdx.x == blockDim.x - 1) out[blockIdx.x] = total[0];""",
    "const float* x, double* out, int n",
)


def sums(device, values, threads=THREADS):
    blocks, n = values.shape
    out = device.empty((blocks,), np.float64)
    shared = shared_bytes(8 * threads // 32, 8)
    launch(SUMS, device.asarray(values), out, np.int32(n), device=device, blocks=blocks, threads=threads, shared=shared)
    return device.to_host(out)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sanitize", SANITIZERS)
def test_a_reduction_gives_the_sum_in_every_schedule_and_build(sanitize, schedule):
    for blocks, threads, n in [(2, 96, 500)] if sanitize == "tsan" else [(1, 32, 1), (3, 128, 1000), (2, 1024, 0)]:
        values = np.random.default_rng(0).random((blocks, n), np.float32)
        found = sums(HostDevice(sanitize, schedule), values, threads)
        np.testing.assert_allclose(found, values.sum(1, dtype=np.float64), rtol=1e-12)


def test_the_portable_fibers_run_the_same():
    values = np.random.default_rng(0).random((2, 500), np.float32)
    device = HostDevice(build_flags=("-DHOST_UCONTEXT",))
    np.testing.assert_array_equal(sums(device, values), sums(HostDevice(), values))


def test_threads_run_in_the_order_of_the_schedule():
    ranks = "out[atomicAdd(out + blockDim.x, 1)] = threadIdx.x;"
    found = {}
    for schedule in SCHEDULES:
        device = HostDevice(schedule=schedule)
        out = device.zeros((THREADS + 1,), np.int32)
        launch(source(ranks, "int* out"), out, device=device)
        found[schedule] = device.to_host(out)[:THREADS].tolist()
    assert found["order"] == list(range(THREADS))
    assert found["reverse"] == list(range(THREADS))[::-1]
    assert found["random:1"] != found["random:2"]
    assert sorted(found["random:1"]) == found["order"]


def test_blocks_run_in_the_order_of_the_schedule():
    ranks = "if (threadIdx.x == 0) out[atomicAdd(out + gridDim.x, 1)] = blockIdx.x;"
    for schedule, expected in [("order", [0, 1, 2, 3, 4]), ("reverse", [4, 3, 2, 1, 0])]:
        device = HostDevice(schedule=schedule)
        out = device.zeros((6,), np.int32)
        launch(source(ranks, "int* out"), out, device=device, blocks=5)
        assert device.to_host(out)[:5].tolist() == expected


LANE = np.arange(32)
COLLECTIVES = {
    "__shfl_sync(FULL_MASK, t, 5)": np.full(32, 5),
    "__shfl_sync(FULL_MASK, t, (t + 1) % 32)": (LANE + 1) % 32,
    "__shfl_sync(FULL_MASK, t, 3, 8)": LANE // 8 * 8 + 3,
    "__shfl_xor_sync(FULL_MASK, t, 16)": LANE ^ 16,
    "__shfl_xor_sync(FULL_MASK, t, 4, 4)": np.where(LANE & 4, LANE ^ 4, LANE),
    "__shfl_down_sync(FULL_MASK, t, 3)": np.where(LANE < 29, LANE + 3, LANE),
    "__shfl_down_sync(FULL_MASK, t, 1, 8)": np.where(LANE % 8 < 7, LANE + 1, LANE),
    "__shfl_up_sync(FULL_MASK, t, 2)": np.where(LANE >= 2, LANE - 2, LANE),
    "__shfl_up_sync(FULL_MASK, t, 2, 16)": np.where(LANE % 16 >= 2, LANE - 2, LANE),
    "int(__shfl_xor_sync(FULL_MASK, t + 0.5, 1) * 2)": 2 * (LANE ^ 1) + 1,
    "t < 16 ? __shfl_sync(0xffff, t, 7) : __shfl_sync(0xffff0000, t, 20)": np.where(LANE < 16, 7, 20),
    "__ballot_sync(FULL_MASK, t % 3 == 0)": np.full(32, sum(1 << i for i in range(0, 32, 3))),
    "__any_sync(FULL_MASK, t == 31) + 2 * __any_sync(FULL_MASK, t > 31)": np.full(32, 1),
    "__all_sync(FULL_MASK, t < 32) + 2 * __all_sync(FULL_MASK, t < 31)": np.full(32, 1),
    "__syncthreads_count(t % 4 == 0)": np.full(32, 8),
    "__syncthreads_or(t == 9) + 2 * __syncthreads_or(t > 40)": np.full(32, 1),
    "__syncthreads_and(t < 40) + 2 * __syncthreads_and(t > 4)": np.full(32, 1),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_collectives_give_what_cuda_documents(schedule):
    body = "int t = threadIdx.x;\n" + "".join(f"out[{i} * 32 + t] = {code};\n" for i, code in enumerate(COLLECTIVES))
    device = HostDevice(schedule=schedule)
    out = device.empty((len(COLLECTIVES), 32), np.uint32)
    launch(source(body, "u32* out"), out, device=device, threads=32)
    for (code, expected), found in zip(COLLECTIVES.items(), device.to_host(out), strict=True):
        np.testing.assert_array_equal(found, expected, err_msg=code)


WORDS = [0, 1, 0x80000000, 0xDEADBEEF, 0xFFFFFFFF]
BUILT_IN = {
    "__popc(a)": lambda a: a.bit_count(),
    "__popcll(u64(a) << 16 | 1)": lambda a: (a << 16 | 1).bit_count(),
    "__clz(a)": lambda a: 32 - a.bit_length(),
    "__clzll(a)": lambda a: 64 - a.bit_length(),
    "__ffs(a)": lambda a: (a & -a).bit_length(),
    "__brev(a)": lambda a: int(f"{a:032b}"[::-1], 2),
    "__umulhi(a, 0xcd9e8d57u)": lambda a: a * 0xCD9E8D57 >> 32,
    "u32(__umul64hi(u64(a) << 32, 0xcd9e8d57ull << 32))": lambda a: a * 0xCD9E8D57 & 0xFFFFFFFF,
    "__funnelshift_l(a, 7u, 4)": lambda a: (7 << 32 | a) << 4 >> 32 & 0xFFFFFFFF,
    "__funnelshift_r(a, 7u, 4)": lambda a: (7 << 32 | a) >> 4 & 0xFFFFFFFF,
    "min(a, 77u) ^ max(a, 77u)": lambda a: a ^ 77,
    "u32(__fmaf_rn(3, 4, 5) + exp2f(3) + log2f(8) + rsqrtf(0.25f) + fminf(1, 2) + fmaxf(1, 2))": lambda a: 33,
    "__float_as_uint(-0.0f) | u32(__double_as_longlong(-0.0) >> 40)": lambda a: 0xFF800000,
}


def test_integer_and_float_built_ins():
    lines = (f"out[{i} * 32 + threadIdx.x] = {code};\n" for i, code in enumerate(BUILT_IN))
    device = HostDevice()
    words = device.asarray(np.resize(np.array(WORDS, np.uint32), 32))
    out = device.empty((len(BUILT_IN), 32), np.uint32)
    body = "u32 a = x[threadIdx.x];\n" + "".join(lines)
    launch(source(body, "const u32* x, u32* out"), words, out, threads=32)
    for (code, expected), found in zip(BUILT_IN.items(), device.to_host(out), strict=True):
        assert found[: len(WORDS)].tolist() == [expected(a) for a in WORDS], code


@pytest.mark.parametrize(("type_", "dtype"), [("int", np.int32), ("u32", np.uint32), ("u64", np.uint64)])
def test_atomics(type_, dtype):
    body = (
        f"typedef {type_} T; T t = threadIdx.x;"
        + """
        atomicAdd(out, t); atomicOr(out + 1, T(1) << t % 30); atomicMax(out + 2, t); atomicMin(out + 3, t);
        atomicAnd(out + 4, ~(T(1) << t % 8)); atomicExch(out + 5, T(5)); atomicXor(out + 6, t);
        atomicCAS(out + 7, T(0), t + 1);"""
    )
    device = HostDevice(schedule="random:3")
    out = device.asarray(np.array([0, 0, 5, 200, 255, 0, 0, 0], dtype))
    launch(source(body, f"{type_}* out"), out, device=device)
    *found, swapped = device.to_host(out).tolist()
    assert found == [THREADS * (THREADS - 1) // 2, (1 << 30) - 1, THREADS - 1, 0, 0, 5, 0]
    assert 1 <= swapped <= THREADS


# ---- launches


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sanitize", SANITIZERS)
def test_blocks_of_a_cooperative_launch_wait_for_each_other(sanitize, schedule):
    assert grid_barrier(HostDevice(sanitize, schedule)) == [6] * 3


def test_blocks_of_an_ordinary_launch_cannot_wait_for_each_other():
    with pytest.raises(RuntimeError, match="kernel, block 0, thread 0: deadlock"):
        grid_barrier(HostDevice(), cooperative=False)


def test_more_cooperating_blocks_than_fit_are_refused():
    with pytest.raises(RuntimeError, match="3 cooperating blocks, 2 fit"):
        grid_barrier(HostDevice(blocks=2))


def test_a_launch_value_runs_on_the_host():
    device = HostDevice()
    values = np.arange(12, dtype=np.float32).reshape(2, 6)
    out = device.empty((2,), np.float64)
    Launch(SUMS, 2, 64, shared_bytes(16, 8)).run(device, (device.asarray(values), out, np.int32(6)))
    assert device.to_host(out).tolist() == [15, 51]
    assert device.launches == ["kernel"]


@pytest.mark.parametrize("sanitize", SANITIZERS)
def test_arguments_may_be_null_and_may_overlap(sanitize):
    device = HostDevice(sanitize)
    whole = device.asarray(np.arange(64, dtype=np.int32))
    body = "if (!none) out[threadIdx.x] = all[threadIdx.x] + all[threadIdx.x + 32] + int(step);"
    kernel = source(body, "const u8* none, const int* all, int* out, u64 step")
    launch(kernel, None, whole, whole[32:], np.uint64(7), device=device, threads=32)
    assert device.to_host(whole).tolist() == [*range(32), *range(39, 39 + 64, 2)]


def test_new_memory_is_unset_or_zero():
    device = HostDevice()
    assert np.isnan(device.empty((3, 2), np.float64)).all()
    assert device.zeros((2, 0, 3), np.int16).shape == (2, 0, 3)
    assert device.zeros((5,), np.int16).tolist() == [0] * 5


# ---- arguments

THREE = source(
    "if (threadIdx.x < 3) out[threadIdx.x] = x[threadIdx.x] * factor;", "const float* x, float* out, float factor"
)


def test_arguments_are_checked():
    device, factor = HostDevice(), np.float32(2)
    wide = device.asarray(np.ones((3, 2), np.float32))
    x, out, read_only = wide.reshape(-1)[:3], device.empty((3,), np.float32), device.empty((3,), np.float32)
    read_only.flags.writeable = False
    launch(THREE, read_only, out, factor, threads=32)
    launch(THREE, x, out, factor, threads=32)
    assert out.tolist() == [2, 2, 2]
    for arguments, message in [
        ((x, out), "takes 3 arguments, got 2"),
        ((x, out, factor, factor), "takes 3 arguments, got 4"),
        ((device.empty((3,), np.float64), out, factor), "argument 0 is an array of float64"),
        ((x.view(np.int32), out, factor), "argument 0 is an array of int32"),
        ((wide[:, 0], out, factor), "argument 0 is not C-contiguous"),
        ((x.tolist(), out, factor), "argument 0 has to be an array"),
        ((x + x, out, factor), "argument 0 is an array of the host"),
        ((x, read_only, factor), "argument 1 is read-only"),
        ((x, out, 2.0), "argument 2 has to be a NumPy scalar, got float"),
        ((x, out, np.float64(2)), "argument 2 is float64"),
        ((x, out, np.int32(2)), "argument 2 is int32"),
    ]:
        with pytest.raises(TypeError, match=message):
            launch(THREE, *arguments, threads=32)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"threads": 33}, "whole warps"),
        ({"threads": 1056}, "whole warps"),
        ({"blocks": 0}, "no block"),
        ({"shared": 300_000}, "limit"),
    ],
)
def test_launch_sizes_are_checked(sizes, message):
    with pytest.raises(RuntimeError, match=message):
        run("", **sizes)


def test_what_the_compiler_refuses_is_shown():
    with pytest.raises(build.CompileError, match="undeclared_name"):
        run("out[0] = undeclared_name;")


def test_float_atomics_and_static_shared_memory_do_not_compile():
    for body in ["atomicAdd((float*)out, 1.0f);", "__shared__ int a[4];"]:
        with pytest.raises(build.CompileError):
            run(body)
