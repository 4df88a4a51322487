// What the start of a movie is fitted to: an even subset of all frames' samples, side by side; and whether every sample
// is a finite number (METHOD.md 6; `even` and `finite` of mixture/rows.py).
#include "samples.cuh"

// words: (R, T, m) samples. pooled: (R, T n), place (t n + i) % m * stride % m of frame t is its i-th; null where the
// start takes all samples as they are. broken: (R), zero, set where a sample is infinite or not a number.
extern "C" __global__ void __launch_bounds__(THREADS)
    movie_pool(const Word* __restrict__ words, i64 n_replicates, i64 n_frames, i64 m, i64 n, i64 stride, Word* pooled,
               u32* broken) {
    i64 first = i64(blockIdx.x) * blockDim.x + threadIdx.x, step = i64(gridDim.x) * blockDim.x;
    if (pooled)
        for (i64 i = first; i < n_replicates * n_frames * n; i += step) {
            i64 frame = i / n, place = i % (n_frames * n) % m * stride % m;
            pooled[i] = words[frame * m + place];
        }
#if WIDE
    for (i64 i = first; i < n_replicates * n_frames * m; i += step)
        if (words[i] != NO_SAMPLE && !isfinite(unpack(words[i]).value)) atomicOr(broken + i / (n_frames * m), 1u);
#endif
}
