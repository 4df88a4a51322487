// Proves that a device compiles, loads and runs this package's kernels: all kinds of arguments, a null pointer, dynamic
// shared memory, a barrier, shuffles.
#include "common.cuh"

// out (blocks, threads) = offset + scale * (reversed thread number + sum of the lane numbers); threads: whole warps
extern "C" __global__ void probe(float* out, const float* nothing, u32 scale, i64 offset, float one, double zero) {
    SHARED_MEMORY(memory);
    Carver carve(memory);
    u32* threads = carve.take<u32>(blockDim.x);
    threads[threadIdx.x] = threadIdx.x;
    __syncthreads();
    u32 sum = threads[blockDim.x - 1 - threadIdx.x] + warp_sum(u32(lane_id()));
    float value = float(offset + i64(scale) * sum) * one + float(zero);
    out[i64(blockIdx.x) * blockDim.x + threadIdx.x] = nothing ? nothing[0] : value;
}
