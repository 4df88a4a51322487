// Whole-number sums from which the share of the foreground and its variance by the design follow (estimate.py).
//
// Compile-time: DESIGN, how the samples were drawn.
#include "common.cuh"

#define N_THREADS 256
#define N_SUMS 5

#define SIMPLE 0    // samples by themselves
#define PAIRS 1     // stratified: successive samples are neighbours
#define CLUSTERS 2  // lines: `size` successive samples belong together

struct Sums {
    int n, with;  // visited, and foreground among them, of the samples of one unit
};

__device__ __forceinline__ Sums unit_sums(const u8* labels, int first, int size, int foreground) {
    Sums sums = {0, 0};
    for (int j = first; j < first + size; ++j) {
        int label = labels[j];
        sums.n += label != NOT_VISITED;
        sums.with += label == foreground;
    }
    return sums;
}

// Block b has `length` units of `size` samples from (b % chunks) * length of fit b / chunks; m / size units a fit.
//
// labels: (F, m). sums: (F, N_SUMS), zero before: visited; foreground; then for PAIRS the pairs both of which were
// visited, and those of them that differ; for CLUSTERS the sums over units of s^2, s n and n^2, s and n being the
// unit's foreground and visited samples.
extern "C" __global__ void __launch_bounds__(N_THREADS) tally(const u8* __restrict__ labels, u64* __restrict__ sums,
                                                              int m, int size, int length, int chunks, int foreground) {
    i64 fit = blockIdx.x / chunks;
    int start = blockIdx.x % chunks * length, stop = min(start + length, m / size);
    const u8* own = labels + fit * m;
    i64 total[N_SUMS] = {};
    for (int unit = start + threadIdx.x; unit < stop; unit += N_THREADS) {
        Sums here = unit_sums(own, unit * size, size, foreground);
        total[0] += here.n;
        total[1] += here.with;
#if DESIGN == PAIRS
        if (unit + 1 < m) {
            Sums next = unit_sums(own, unit + 1, 1, foreground);
            total[2] += here.n & next.n;
            total[3] += here.n & next.n & (here.with ^ next.with);
        }
#elif DESIGN == CLUSTERS
        total[2] += i64(here.with) * here.with;
        total[3] += i64(here.with) * here.n;
        total[4] += i64(here.n) * here.n;
#endif
    }
#pragma unroll
    for (int i = 0; i < N_SUMS; ++i) {
        total[i] = warp_sum(total[i]);
        if (lane_id() == 0 && total[i]) atomicAdd(sums + fit * N_SUMS + i, u64(total[i]));
    }
}
