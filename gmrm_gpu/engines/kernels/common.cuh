// Types, shared memory and small helpers of all kernels. No system header: NVRTC compiles this text as it stands, and
// the tests compile the same text for the CPU after a header that defines what CUDA has built in.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define WARP 32
#define FULL_MASK 0xffffffffu
#define NOT_VISITED 255
#define NO_COMPONENT -1e30  // log-density of a dropped component: finite, so that no difference of infinities arises

#ifndef SHARED_MEMORY  // the CPU build hands out each block's memory itself, red zones included
#define SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]
#define RED_ZONE 0
#define GUARD(start, bytes)
#endif

// Cuts the one dynamic block of shared memory into arrays, each aligned to 16 bytes. Its twin on the host is
// `engines.source.shared_bytes`, which adds up the same sizes for the launch.
struct Carver {
    unsigned char* next;
    __device__ explicit Carver(unsigned char* memory) : next(memory) {}
    template <class T>
    __device__ T* take(int n) {
        T* start = reinterpret_cast<T*>(next);
        int bytes = (int(n * sizeof(T)) + 15) / 16 * 16;
        next += bytes + RED_ZONE;
        GUARD(start, int(n * sizeof(T)));
        return start;
    }
};

__device__ __forceinline__ int lane_id() { return threadIdx.x % WARP; }
__device__ __forceinline__ int warp_id() { return threadIdx.x / WARP; }
__device__ __forceinline__ int n_warps() { return blockDim.x / WARP; }

// Sum over the lanes of a warp, the same in every lane, always added in the same order.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
    for (int offset = WARP / 2; offset; offset /= 2) value += __shfl_xor_sync(FULL_MASK, value, offset);
    return value;
}
