// The M-steps of a movie from the sums of one pass over all its frames (METHOD.md 6, `mixture.movie_steps`): one block,
// float64.
#pragma once
#include "movie_walk.cuh"

constexpr double MIN_COUNT_OF_MOVIE = 2.0;  // a component that holds fewer samples in all frames is dropped

// What the common step needs, summed over frames; places in StepState::totals.
constexpr int OWN = 0, RIGHT = K, CROSS = 2 * K, SECOND = CROSS + K * Q, WANTED = SECOND + P, N_TOTALS = WANTED + Q;

// State of a fit in shared memory.
struct StepState {
    Common now, before[2];
    double totals[N_TOTALS + DRIFT];
    double count[K], inverse[K], shift[K], step[Q_OR_ONE], normal[Q_OR_ONE * (Q + 1)];
    double by_warp[WARP];
    double moved;
    int n_iter, done;
};

// Numbers of one movie in global memory, float64.
struct Movie {
    int n_frames;
    double *weights, *drift;  // (T, K), (T, DRIFT)
    double* theta;            // (T, N_PARAMETERS) that the last pass was made with
    double* sums;             // (T, N_SUMS)
    double* walk;             // (T, WALK)
    __device__ __forceinline__ double* sums_of(int t) const { return sums + i64(t) * N_SUMS; }
    __device__ __forceinline__ double* drift_of(int t) const { return drift + t * DRIFT; }
};

// numbers: (T, N_PARAMETERS + N_SUMS + WALK).
__device__ __forceinline__ Movie movie_at(int n_frames, double* weights, double* drift, double* numbers) {
    double *sums = numbers + i64(n_frames) * N_PARAMETERS, *walk = sums + i64(n_frames) * N_SUMS;
    return {n_frames, weights, drift, numbers, sums, walk};
}

// out[i] = sum over frames of term(i, t), for i < n; one warp each, always in the same order.
template <class Term>
__device__ __forceinline__ void sum_frames(int n, int n_frames, double* out, Term term) {
    __syncthreads();
    for (int i = warp_id(); i < n; i += n_warps()) {
        double total = 0.0;
        for (int t = lane_id(); t < n_frames; t += WARP) total += term(i, t);
        total = warp_sum(total);
        if (lane_id() == 0) out[i] = total;
    }
    __syncthreads();
}

// Drops components that hold too few samples; each frame's weights.
__device__ __forceinline__ void reweight(const Movie& movie, StepState* state) {
    sum_frames(K, movie.n_frames, state->count, [&](int k, int t) { return resp_sum(movie.sums_of(t), k, 0); });
    if (threadIdx.x < K && !(state->count[threadIdx.x] >= MIN_COUNT_OF_MOVIE)) state->now.alive[threadIdx.x] = 0.0;
    __syncthreads();
    for (int t = threadIdx.x; t < movie.n_frames; t += blockDim.x) {
        double count[K];
        for (int k = 0; k < K; ++k) count[k] = resp_sum(movie.sums_of(t), k, 0);
        frame_weights(count, state->now.alive, movie.weights + t * K);
    }
}

// The sums of one component about a mean moved by `shift` and a trend moved by step (Q), same responsibilities.
__device__ __forceinline__ void move_sums(double* sums, int k, double shift, const double* step) {
    double* resp = sums + k * SUMS_A_COMPONENT;
    double* dev = resp + P;
    double square = dev[1 + Q] + shift * (shift * resp[0] - 2.0 * dev[0]);
    double first = dev[0] - shift * resp[0];
#if N_TERMS > 0
    for (int i = 0; i < Q; ++i) {
        double moved = 0.0;
        for (int j = 0; j < Q; ++j) moved += resp[PAIR[i * Q + j]] * step[j];
        square += step[i] * (2.0 * (shift * resp[1 + i] - dev[1 + i]) + moved);
        first -= resp[1 + i] * step[i];
        dev[1 + i] -= shift * resp[1 + i] + moved;
    }
#endif
    dev[0] = first;
    dev[1 + Q] = square;
}

__device__ __forceinline__ double common_term(const Movie& movie, const double* inverse, int i, int t) {
    const double* sums = movie.sums_of(t);
    double gain = gain_of(movie.drift_of(t)), tie = 1.0 / (gain * gain);
    if (i < RIGHT) return inverse[i] * resp_sum(sums, i, 0);
    if (i < CROSS) return inverse[i - RIGHT] / gain * dev_sum(sums, i - RIGHT, 0);
#if N_TERMS > 0
    if (i < SECOND) {
        int k = (i - CROSS) / Q, j = (i - CROSS) % Q;
        return inverse[k] / gain * resp_sum(sums, k, 1 + j);
    }
#endif
    double total = 0.0;
    for (int k = 0; k < K; ++k)
        total += inverse[k] * (i < WANTED ? resp_sum(sums, k, i - SECOND) : dev_sum(sums, k, 1 + i - WANTED));
    return tie * total;
}

#if N_TERMS > 0
// The common trend's step, with the means' eliminated: normal equations (Q, Q + 1) from the totals, solved in place.
__device__ __forceinline__ void common_trend(double pull, StepState* state) {
    const double* totals = state->totals;
    double *a = state->normal, largest = 0.0;
    for (int i = 0; i < Q; ++i) {
        for (int j = 0; j <= Q; ++j) {
            double total = j < Q ? totals[SECOND + PAIR[i * Q + j]] : totals[WANTED + i];
            for (int k = 0; k < K; ++k)
                total -= totals[CROSS + k * Q + i] / totals[OWN + k] *
                         (j < Q ? totals[CROSS + k * Q + j] : totals[RIGHT + k]);
            if (i == j) total += pull;
            if (j == Q) total -= pull * state->now.coef[i];
            a[i * (Q + 1) + j] = total;
            if (j < Q && !(fabs(total) <= largest)) largest = fabs(total);
        }
    }
    bool usable = largest > 0.0 && largest < 1e300;
    // A ridge above the rounding of the sums: a term that the samples cannot see must not run away.
    for (int i = 0; i < Q; ++i)
        for (int j = 0; j <= Q; ++j) {
            double value = usable ? a[i * (Q + 1) + j] / largest : j == Q ? a[i * (Q + 1) + j] : i == j;
            a[i * (Q + 1) + j] = value + (i == j ? 64 * 1.1920928955078125e-07 : 0.0);
        }
    for (int c = 0; c < Q; ++c)  // Gauss-Jordan; positive definite, so no pivoting
        for (int i = 0; i < Q; ++i) {
            double factor = i == c ? 0.0 : a[i * (Q + 1) + c] / a[c * (Q + 1) + c];
            for (int j = c; j <= Q && i != c; ++j) a[i * (Q + 1) + j] -= factor * a[c * (Q + 1) + j];
        }
    for (int i = 0; i < Q; ++i) state->step[i] = a[i * (Q + 1) + Q] / a[i * (Q + 1) + i];
}
#endif

// Means and trend of all frames by one weighted least squares; the sums are moved to the new ones.
__device__ __forceinline__ void common_step(const Movie& movie, double pull, StepState* state) {
    Common* now = &state->now;
    if (threadIdx.x < K) {
        int k = threadIdx.x;
        state->inverse[k] = now->alive[k] > 0.0 ? 1.0 / (now->sigmas[k] * now->sigmas[k]) : 0.0;
    }
    sum_frames(N_TOTALS, movie.n_frames, state->totals,
               [&](int i, int t) { return common_term(movie, state->inverse, i, t); });
    if (threadIdx.x == 0) {
        double* totals = state->totals;
        for (int k = 0; k < K; ++k)
            if (!(now->alive[k] > 0.0 && totals[OWN + k] > 0.0)) totals[OWN + k] = 1.0;
#if N_TERMS > 0
        common_trend(pull, state);
#endif
        for (int k = 0; k < K; ++k) {
            double right = totals[RIGHT + k];
            for (int j = 0; j < Q; ++j) right -= totals[CROSS + k * Q + j] * state->step[j];
            state->shift[k] = now->alive[k] > 0.0 ? right / totals[OWN + k] : 0.0;
            now->means[k] += state->shift[k];
        }
        for (int j = 0; j < Q; ++j) now->coef[j] += state->step[j];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < movie.n_frames * K; i += blockDim.x) {
        int t = i / K, k = i % K;
        move_sums(movie.sums_of(t), k, gain_of(movie.drift_of(t)) * state->shift[k], state->step);
    }
    __syncthreads();
}

// The pivot moved to the mean of the commonest component: other numbers for the same frames.
__device__ __forceinline__ void move_pivot(const Movie& movie, StepState* state) {
    sum_frames(K, movie.n_frames, state->totals, [&](int k, int t) { return movie.weights[t * K + k]; });
    int commonest = 0;
    for (int k = 1; k < K; ++k)
        if (state->totals[k] > state->totals[commonest]) commonest = k;
    double pivot = state->now.means[commonest], change = pivot - state->now.pivot;
    for (int t = threadIdx.x; t < movie.n_frames; t += blockDim.x)
        movie.drift_of(t)[Q] += movie.drift_of(t)[Q + 1] * change;
    __syncthreads();
    if (threadIdx.x == 0) state->now.pivot = pivot;
    __syncthreads();
}

// With the deviations found (the last column of the walk), but what all frames have in common moved to the common
// parameters: the same frames. The sums are moved too.
__device__ __forceinline__ void take_drift(const Movie& movie, StepState* state) {
    Common* now = &state->now;
    auto found = [&](int t, int i) -> double& { return movie.walk[i64(t) * WALK + i * (DRIFT + 1) + DRIFT]; };
    for (int t = threadIdx.x; t < movie.n_frames; t += blockDim.x) {
        double contrast = found(t, Q + 1), most = MOST_CONTRAST - 1.0, least = 1.0 / MOST_CONTRAST - 1.0;
        found(t, Q + 1) = contrast < least ? least : contrast > most ? most : contrast;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < movie.n_frames * K; i += blockDim.x) {
        int t = i / K, k = i % K;
        const double* drift = movie.drift_of(t);
        double step[Q_OR_ONE], contrast = now->means[k] - now->pivot;
        for (int j = 0; j < Q; ++j) step[j] = found(t, j) - drift[j];
        move_sums(movie.sums_of(t), k, (found(t, Q) - drift[Q]) + (found(t, Q + 1) - drift[Q + 1]) * contrast, step);
    }
    double* mean = state->totals + N_TOTALS;
    sum_frames(DRIFT, movie.n_frames, mean, [&](int i, int t) { return found(t, i) / movie.n_frames; });
    double gain = 1.0 + mean[Q + 1];
    for (int i = threadIdx.x; i < movie.n_frames * DRIFT; i += blockDim.x) {
        int t = i / DRIFT, j = i % DRIFT;
        movie.drift[i] = (found(t, j) - mean[j]) / (j == Q + 1 ? gain : 1.0);
    }
    if (threadIdx.x == 0) {
        double pivot = now->pivot + mean[Q];
        for (int k = 0; k < K; ++k) now->means[k] = pivot + gain * (now->means[k] - now->pivot);
        for (int j = 0; j < Q; ++j) now->coef[j] += mean[j];
        now->pivot = pivot;
    }
    __syncthreads();
}

// Sigmas at the new means and trends.
__device__ __forceinline__ void sigma_step(const Movie& movie, double floor, StepState* state) {
    sum_frames(K, movie.n_frames, state->totals, [&](int k, int t) {
        double gain = gain_of(movie.drift_of(t));
        return square_sum(movie.sums_of(t), k) / (gain * gain);
    });
    if (threadIdx.x < K) {
        int k = threadIdx.x;
        double count = state->count[k], least = MIN_COUNT_OF_MOVIE;
        double variance = state->totals[k] / (count > least ? count : least);
        variance = variance <= floor * floor ? floor * floor : variance;  // NaN stays NaN
        if (state->now.alive[k] > 0.0) state->now.sigmas[k] = sqrt(variance);
    }
    __syncthreads();
}

// Each frame's deviation, tied to its neighbours'; the sums are moved to the new ones. After `common_step`.
__device__ __forceinline__ void drift_step(const Movie& movie, const Tie& tie, StepState* state) {
    move_pivot(movie, state);
    for (int i = threadIdx.x; i < movie.n_frames * DRIFT; i += blockDim.x) {
        int t = i / DRIFT, row = i % DRIFT;
        const double *sums = movie.sums_of(t), *drift = movie.drift_of(t);
        double *out = movie.walk + i64(t) * WALK + row * (DRIFT + 1), gain = gain_of(drift);
        double precision[K], contrast[K];
        for (int k = 0; k < K; ++k) {
            precision[k] = state->inverse[k] / (gain * gain);
            contrast[k] = state->now.means[k] - state->now.pivot;
        }
        double pull = information(sums, precision, contrast, row, DRIFT);
        for (int j = 0; j < DRIFT; ++j) {
            out[j] = information(sums, precision, contrast, row, j);
            pull += out[j] * drift[j];
        }
        out[DRIFT] = pull;
    }
    __syncthreads();
    if (warp_id() == 0) smooth_walk(movie.walk, movie.n_frames, tie);
    __syncthreads();
    take_drift(movie, state);
}
