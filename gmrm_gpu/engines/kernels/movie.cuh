// Movies fitted as a whole (METHOD.md 6): who works on which replicate, and the parameters of a movie.
#pragma once
#include "moments.cuh"

constexpr double PSEUDO_COUNT = 0.5;  // samples added to each component of each frame's weights
constexpr int DRIFT = Q + 2;          // a frame's deviation: trend coefficients, offset, contrast
constexpr int Q_OR_ONE = Q > 0 ? Q : 1;

// The blocks that fit one replicate together. Blocks of a team wait for each other, so all of a launch with teams of
// more than one block must be on the device at once (a cooperative launch).
struct Team {
    u32* arrived;  // zero at launch; counts all arrivals, so that nothing need be reset
    int size, rank, index, n_teams;

    // How the threads of a team share numbered things.
    __device__ __forceinline__ int first() const { return rank * blockDim.x + threadIdx.x; }
    __device__ __forceinline__ int stride() const { return size * blockDim.x; }
    __device__ __forceinline__ void sync() const {
        __syncthreads();
        if (size == 1) return;
        if (threadIdx.x == 0) {
            __threadfence();
            u32 goal = (atomicAdd(arrived, 1u) / size + 1) * size;
            while (int(atomicAdd(arrived, 0u) - goal) < 0) __nanosleep(100);
            __threadfence();
        }
        __syncthreads();
    }
};

// The threads of one block, likewise.
struct Alone {
    __device__ __forceinline__ int first() const { return threadIdx.x; }
    __device__ __forceinline__ int stride() const { return blockDim.x; }
    __device__ __forceinline__ void sync() const { __syncthreads(); }
};

// board: 1 + 2 n_teams words, zero at launch: replicates taken; arrivals of each team; the replicate it works on.
__device__ __forceinline__ Team make_team(u32* board, int size) {
    int index = blockIdx.x / size, n_teams = gridDim.x / size;
    return {board + 1 + index, size, int(blockIdx.x) % size, index, n_teams};
}

// The next replicate nobody has, for all threads of the team; its answer does not depend on who takes it.
__device__ __forceinline__ u32 next_replicate(const Team& team, u32* board) {
    u32* slot = board + 1 + team.n_teams + team.index;
    if (team.rank == 0 && threadIdx.x == 0) *slot = atomicAdd(board, 1u);
    team.sync();
    u32 taken = *slot;
    team.sync();
    return taken;
}

// Parameters common to all frames, standardised; float64. In frame t, whose deviation is (b_1..b_q, o, g), the trend
// is coef + b, the means are means + o + g (means - pivot), and the sigmas (1 + g) sigmas.
struct Common {
    double means[K], sigmas[K], coef[Q_OR_ONE], pivot;
    double alive[K];  // 1, or 0 for a dropped component
};
constexpr int N_COMMON = sizeof(Common) / sizeof(double);

__device__ __forceinline__ double gain_of(const double* drift) { return 1.0 + drift[Q + 1]; }

// Place i of a frame's parameters (`theta`); log weights are 0, for samples that carry their own, or say dropped.
__device__ __forceinline__ double frame_theta(const Common& common, const double* drift, int i) {
    if (i < MEANS) return common.alive[i] > 0.0 ? 0.0 : NO_COMPONENT;
    if (i < LOG_SIGMAS) {
        double contrast = common.means[i - MEANS] - common.pivot;
        return common.pivot + drift[Q] + gain_of(drift) * contrast;
    }
    if (i < COEF) return log(common.sigmas[i - LOG_SIGMAS]) + log(gain_of(drift));
    return common.coef[i - COEF] + drift[i - COEF];
}

// Weights of a frame, or of the movie, from its counts (K).
__device__ __forceinline__ void frame_weights(const double* count, const double* alive, double* weights) {
    double total = 0.0;
    for (int k = 0; k < K; ++k) total += alive[k] > 0.0 ? count[k] + PSEUDO_COUNT : 0.0;
    for (int k = 0; k < K; ++k)
        weights[k] = (alive[k] > 0.0 ? count[k] + PSEUDO_COUNT : 0.0) / (total > 0.0 ? total : 1.0);
}
