// What one fit keeps in shared memory, and its passes.
#pragma once
#include "cycle.cuh"
#include "philox.cuh"
#include "starts.cuh"
#include "team.cuh"

struct FitState : Cycle {
    double best[N_PARAMETERS], best_value;  // of the short runs that compare starts
    double n, centre, scale, floor, pull;
    double means[N_STARTS * K];
    u32 stream[8];     // random words of the k-means++ start
    double extent[4];  // samples, sum of values, lowest, highest
    Units units;
    Densities at;
    StepWork work;
};
static_assert(sizeof(FitState) <= FIT_STATE_BYTES, "engines.fused.fit reserves less than a fit keeps");

// Everything a block needs for its fits.
struct Block {
    FitState* state;
    double* sums;     // (N_SUMS)
    double* by_warp;  // (n_warps, WARP_SUMS + 1)
    Team team;
};

// The settings of the fits; see MixtureConfig.
struct Settings {
    int height, width;
    double sigma_floor, trend_prior, tol;  // grey levels, grey levels or 0, gain a sample
    int max_iter, n_start_iter;
    bool joint;
};

// Chunks of CHUNK samples. A sum is that of the chunks in their order, so it depends neither on how many blocks share a
// fit nor on the number of multiprocessors.
__device__ __forceinline__ int n_chunks(i64 m) { return int((m + CHUNK - 1) / CHUNK); }

// Joins n extents (n, 4) in their order.
__device__ __forceinline__ void join_extents(const double* parts, int n, double* out) {
    for (int i = 0; i < 4; ++i) out[i] = parts[i];
    for (int c = 1; c < n; ++c) {
        const double* other = parts + c * 4;
        out[0] += other[0];
        out[1] += other[1];
        out[2] = other[2] < out[2] ? other[2] : out[2];
        out[3] = other[3] > out[3] ? other[3] : out[3];
    }
}

// Number, sum, lowest and highest of the values of words[0..n) into state->extent; with `squares` the sum is that of
// squared deviations from the centre.
__device__ __forceinline__ void measure(const Word* words, i64 n, bool squares, Block& block) {
    double found[4] = {0.0, 0.0, 1e300, -1e300}, centre = block.state->centre;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
        Word word = words[i];
        if (word == NO_SAMPLE) continue;
        double value = unpack(word).value;
        found[0] += 1.0;
        found[1] += squares ? (value - centre) * (value - centre) : value;
        found[2] = value < found[2] ? value : found[2];
        found[3] = value > found[3] ? value : found[3];
    }
    found[0] = warp_sum(found[0]);
    found[1] = warp_sum(found[1]);
    found[2] = -warp_max(-found[2]);
    found[3] = warp_max(found[3]);
    if (lane_id() == 0)
        for (int i = 0; i < 4; ++i) block.by_warp[warp_id() * 4 + i] = found[i];
    __syncthreads();
    if (threadIdx.x == 0) join_extents(block.by_warp, n_warps(), block.state->extent);
    __syncthreads();
}

#if TEAM
// The same over all chunks of a fit.
__device__ __forceinline__ void measure_all(const Word* words, i64 m, bool squares, Block& block) {
    Team& team = block.team;
    double* partials = team.partials + i64(team.turn) * n_chunks(m) * N_SUMS;
    for (int c = team.rank; c < n_chunks(m); c += team.size) {
        measure(words + i64(c) * CHUNK, min(i64(CHUNK), m - i64(c) * CHUNK), squares, block);
        if (threadIdx.x < 4) partials[c * 4 + threadIdx.x] = block.state->extent[threadIdx.x];
        __syncthreads();
    }
    team.turn ^= 1;
    team.meet();
    if (threadIdx.x == 0) join_extents(partials, n_chunks(m), block.state->extent);
    __syncthreads();
}

// All sums of a fit at state->theta.
__device__ __forceinline__ void pass(const Word* words, i64 m, Block& block) {
    Team& team = block.team;
    double* partials = team.partials + i64(team.turn) * n_chunks(m) * N_SUMS;
    Densities at = block.state->at;
    for (int c = team.rank; c < n_chunks(m); c += team.size) {
        i64 first = i64(c) * CHUNK;
        sum_samples(words + first, int(min(i64(CHUNK), m - first)), block.state->units, at, block.by_warp, block.sums);
        for (int s = threadIdx.x; s < N_SUMS; s += blockDim.x) partials[i64(c) * N_SUMS + s] = block.sums[s];
        __syncthreads();
    }
    team.turn ^= 1;
    team.meet();
    for (int s = threadIdx.x; s < N_SUMS; s += blockDim.x) {
        double total = 0.0;
        for (int c = 0; c < n_chunks(m); ++c) total += partials[i64(c) * N_SUMS + s];
        block.sums[s] = total;
    }
    __syncthreads();
}
#else
__device__ __forceinline__ void measure_all(const Word* words, i64 m, bool squares, Block& block) {
    measure(words, m, squares, block);
}

__device__ __forceinline__ void pass(const Word* words, i64 m, Block& block) {
    Densities at = block.state->at;
    sum_samples(words, int(m), block.state->units, at, block.by_warp, block.sums);
}
#endif

__device__ __forceinline__ double log_prior(const double* theta, double pull) {
    double total = 0.0;
    for (int j = 0; j < Q; ++j) total += theta[COEF + j] * theta[COEF + j];
    return -0.5 * pull * total;
}

// Log-likelihood and log prior at state->theta, whose sums are there; one warp.
__device__ __forceinline__ double objective(const Block& block) {
    const FitState* state = block.state;
    return block.sums[LOG_LIKELIHOOD] + rounding_of(state->theta, block.sums) + log_prior(state->theta, state->pull);
}
