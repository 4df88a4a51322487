// How single frames differ from the movie's parameters: the likeliest deviations under a random walk (METHOD.md 6,
// `mixture.drift`).
#pragma once
#include "movie_pass.cuh"

constexpr int WALK = DRIFT * (DRIFT + 1);  // numbers a frame: information (DRIFT, DRIFT), the pull beside it
static_assert(2 * DRIFT + 1 <= WARP, "one lane holds one column");

// Inverse variances of a step of the walk, and of its first value; component i of (b_1..b_q, o, g).
struct Tie {
    double step[DRIFT], first[DRIFT];
};

// STEP_OF_WALK, FIRST_OF_WALK: standard deviations of a trend coefficient, the offset, the contrast.
__device__ __forceinline__ void make_tie(double strength, Tie* tie) {
    const double step[3] = {STEP_OF_WALK}, first[3] = {FIRST_OF_WALK};
    for (int i = threadIdx.x; i < DRIFT; i += blockDim.x) {
        int kind = i < Q ? 0 : i == Q ? 1 : 2;
        tie->step[i] = 1.0 / (step[kind] * strength * (step[kind] * strength));
        tie->first[i] = 1.0 / (first[kind] * first[kind]);
    }
}

// Which monomial belongs to the product of deviations i and j: trend terms, and the constant after them.
__device__ __forceinline__ int product_of(int i, int j) {
#if N_TERMS > 0
    if (i < Q && j < Q) return PAIR[i * Q + j];
#endif
    return i < Q ? 1 + i : j < Q ? 1 + j : 0;
}

// Entry (i, j) of a frame's information about its deviation; column DRIFT is the pull, what the data alone ask for.
// precision, contrast: (K) 1 / sigma^2 and mean - pivot.
__device__ __forceinline__ double information(const double* sums, const double* precision, const double* contrast,
                                              int i, int j) {
    constexpr int CONTRAST = Q + 1;
    double total = 0.0;
    for (int k = 0; k < K; ++k) {
        double weight = precision[k] * (i == CONTRAST ? contrast[k] : 1.0);
        if (j == DRIFT) {
            total += weight * dev_sum(sums, k, i < Q ? 1 + i : 0);
        } else {
            weight *= j == CONTRAST ? contrast[k] : 1.0;
            total += weight * resp_sum(sums, k, product_of(i, j));
        }
    }
    return total;
}

// Solves A X = B by Gauss-Jordan, positive definite: lanes 0..DRIFT-1 hold the columns of A, the others those of B.
__device__ __forceinline__ void solve_columns(double (&column)[DRIFT]) {
#pragma unroll
    for (int c = 0; c < DRIFT; ++c) {
        double pivot = __shfl_sync(FULL_MASK, column[c], c);
        double scaled = column[c] / pivot;
#pragma unroll
        for (int i = 0; i < DRIFT; ++i) {
            double factor = __shfl_sync(FULL_MASK, column[i], c);
            column[i] = i == c ? scaled : column[i] - factor * scaled;
        }
    }
}

// The likeliest deviations: a block tridiagonal system, solved forwards and back; one warp. walk: (T, WALK) with the
// information and the pull, the deviations are left in place of the pull.
__device__ __forceinline__ void smooth_walk(double* walk, int n_frames, const Tie& tie) {
    int lane = lane_id(), place = lane < DRIFT ? lane : lane == 2 * DRIFT ? DRIFT : -1;
    double column[DRIFT] = {}, next[DRIFT];
#pragma unroll
    for (int i = 0; i < DRIFT; ++i) next[i] = place >= 0 ? walk[i * (DRIFT + 1) + place] : 0.0;
    for (int t = 0; t < n_frames; ++t) {
        double* here = walk + i64(t) * WALK;
        int links = (t > 0) + (t < n_frames - 1);
#pragma unroll
        for (int i = 0; i < DRIFT; ++i) {
            double before = tie.step[i] * __shfl_sync(FULL_MASK, column[i], lane < DRIFT ? lane + DRIFT : lane);
            column[i] = next[i] + (lane < DRIFT ? -before : before);
            if (i == lane) column[i] += links * tie.step[i] + (t == 0 ? tie.first[i] : 0.0);
            if (lane >= DRIFT && lane < 2 * DRIFT) column[i] = i == lane - DRIFT ? tie.step[i] : 0.0;
        }
#pragma unroll
        for (int i = 0; i < DRIFT; ++i)
            next[i] = place >= 0 && t + 1 < n_frames ? here[WALK + i * (DRIFT + 1) + place] : 0.0;
        solve_columns(column);
        __syncwarp();
#pragma unroll
        for (int i = 0; i < DRIFT; ++i)
            if (lane >= DRIFT && lane <= 2 * DRIFT) here[i * (DRIFT + 1) + lane - DRIFT] = column[i];
        __syncwarp();
    }
    double found = 0.0;
    for (int t = n_frames - 1; t >= 0; --t) {
        double* row = walk + i64(t) * WALK + (lane < DRIFT ? lane : 0) * (DRIFT + 1);
        double value = row[DRIFT];
#pragma unroll
        for (int j = 0; j < DRIFT; ++j) value += row[j] * __shfl_sync(FULL_MASK, found, j);
        found = value;
        __syncwarp();
        if (lane < DRIFT) row[DRIFT] = found;
    }
    __syncwarp();
}
