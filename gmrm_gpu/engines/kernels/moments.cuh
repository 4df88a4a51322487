// One pass over samples: responsibilities by log-sum-exp, log-likelihood, and the sums an M-step needs (METHOD.md 2).
#pragma once
#include "model.cuh"

// Components whose sums one sweep over the samples keeps in registers. Larger models sweep more than once, with the
// same responsibilities: exact, and cheaper than spilled accumulators.
constexpr int MOST_ACCUMULATORS = 120;
constexpr int COMPONENTS_A_SWEEP = MOST_ACCUMULATORS / SUMS_A_COMPONENT < 1   ? 1
                                   : MOST_ACCUMULATORS / SUMS_A_COMPONENT > K ? K
                                                                              : MOST_ACCUMULATORS / SUMS_A_COMPONENT;
constexpr int WARP_SUMS = (COMPONENTS_A_SWEEP * SUMS_A_COMPONENT + WARP - 1) / WARP * WARP;

// The parameters as the samples see them: float32, densities in powers of two.
//     log2 density of component k = level[k] - sharpness[k] * (residual - mean[k])^2
struct Densities {
    float level[K], sharpness[K], mean[K], coef[Q > 0 ? Q : 1];
};

constexpr double LOG2_E = 1.4426950408889634, LN_2 = 0.6931471805599453, HALF_LOG_2PI = 0.9189385332046727;

__device__ __forceinline__ double level_of(const double* theta, int k) {
    double level = LOG2_E * (theta[k] - theta[LOG_SIGMAS + k] - HALF_LOG_2PI);
    return level > NO_COMPONENT ? level : NO_COMPONENT;
}

__device__ __forceinline__ double sharpness_of(const double* theta, int k) {
    return 0.5 * LOG2_E * exp(-2.0 * theta[LOG_SIGMAS + k]);
}

// Run by one warp; `at` in shared memory.
__device__ __forceinline__ void make_densities(const double* theta, Densities* at) {
    int lane = lane_id();
    if (lane < K) {
        at->level[lane] = float(level_of(theta, lane));
        at->sharpness[lane] = float(sharpness_of(theta, lane));
        at->mean[lane] = float(theta[MEANS + lane]);
    }
    if (lane < Q) at->coef[lane] = float(theta[COEF + lane]);
}

// What the rounding of parameters to float32 took from the log-likelihood, to first order: its derivatives are sums
// that are there already. Without it the sum is noisy by 1e-7 a sample, ten times the tolerance. Run by one warp.
__device__ __forceinline__ double rounding_of(const double* theta, const double* sums) {
    double lost = 0.0;
    int k = lane_id();
    if (k < K && level_of(theta, k) > 0.5 * NO_COMPONENT) {
        double level = level_of(theta, k), sharpness = sharpness_of(theta, k);
        double mean = theta[MEANS + k], slope = 2.0 * sharpness;
        lost += (level - float(level)) * resp_sum(sums, k, 0) - (sharpness - float(sharpness)) * square_sum(sums, k);
        lost += slope * (mean - float(mean)) * dev_sum(sums, k, 0);
        for (int j = 0; j < Q; ++j)
            lost += slope * (theta[COEF + j] - float(theta[COEF + j])) * dev_sum(sums, k, 1 + j);
    }
    return LN_2 * warp_sum(lost);
}

// A float32 sum that carries its rounding along (Kahan 1965): nearly float64, also where float64 is slow.
struct Compensated {
    float sum = 0.0f, excess = 0.0f;
    __device__ __forceinline__ void add(float value) {
        float corrected = value - excess, total = sum + corrected;
        excess = (total - sum) - corrected;
        sum = total;
    }
    __device__ __forceinline__ double value() const { return double(sum) - double(excess); }
};

// Turns log2 densities, the highest of which is `top`, into responsibilities; returns log2 of their sum.
__device__ __forceinline__ float normalise(float (&resp)[K], float top) {
    float total = 0.0f;
#pragma unroll
    for (int k = 0; k < K; ++k) {
        resp[k] = exp2f(resp[k] - top);
        total += resp[k];
    }
    float inverse = 1.0f / total;
#pragma unroll
    for (int k = 0; k < K; ++k) resp[k] *= inverse;
    return top + __log2f(total);  // total is in [1, K]: within 2^-22, which differences of passes do not see
}

// Responsibilities of one sample, their deviations, and log2 of its density.
__device__ __forceinline__ float e_step(float residual, const Densities& at, float (&resp)[K], float (&dev)[K]) {
    float top = float(NO_COMPONENT);
#pragma unroll
    for (int k = 0; k < K; ++k) {
        dev[k] = residual - at.mean[k];
        resp[k] = at.level[k] - at.sharpness[k] * (dev[k] * dev[k]);
        top = fmaxf(top, resp[k]);
    }
    return normalise(resp, top);
}

// The trend is small beside z: summed by itself it rounds less, and rounding here is most of the objective's noise.
__device__ __forceinline__ float residual_of(float z, const float (&basis)[P], const Densities& at) {
    float trend = 0.0f;
#pragma unroll
    for (int j = 0; j < Q; ++j) trend += at.coef[j] * basis[1 + j];
    return z - trend;
}

// Sums v[0..N) over the lanes of a warp, N a multiple of 32: lane l ends with v[l N/32 .. (l + 1) N/32) in its first
// places. Each step hands half of the numbers to the partner: N exchanges in all, where N butterflies would take 5 N.
template <int N, int OFFSET>
__device__ __forceinline__ void fold(float* v) {
    constexpr int HALF = N / 2;
    bool upper = lane_id() & OFFSET;
#pragma unroll
    for (int i = 0; i < HALF; ++i) {
        float give = upper ? v[i] : v[i + HALF], keep = upper ? v[i + HALF] : v[i];
        v[i] = keep + __shfl_xor_sync(FULL_MASK, give, OFFSET);
    }
    if constexpr (OFFSET > 1) fold<HALF, OFFSET / 2>(v);
}

// Adds the warps' sums (n_warps, WARP_SUMS) float64 in the order of the warps.
__device__ __forceinline__ void add_warps(const double* by_warp, int n, double* sums) {
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        double total = 0.0;
        for (int w = 0; w < n_warps(); ++w) total += by_warp[w * WARP_SUMS + i];
        sums[i] = total;
    }
    __syncthreads();
}

// Components FIRST..FIRST + COUNT - 1 of `sum_samples`; the first sweep adds the log-likelihood too.
template <int FIRST, int COUNT>
__device__ __forceinline__ double sweep(const Word* words, int n, const Units& units, const Densities& at,
                                        float (&sums)[WARP_SUMS]) {
    Compensated log_density;
#pragma unroll
    for (int i = 0; i < WARP_SUMS; ++i) sums[i] = 0.0f;
    words += threadIdx.x;
    int left = n - int(threadIdx.x), step = blockDim.x;
    Word next = left > 0 ? *words : NO_SAMPLE;
    for (; left > 0; left -= step) {
        Word word = next;
        words += step;
        next = left > step ? *words : NO_SAMPLE;  // on its way while this one is worked on
        if (word == NO_SAMPLE) continue;
        Sample sample = unpack(word);
        float basis[P], resp[K], dev[K];
        monomials(float(sample.x) * units.step_x + units.first_x, float(sample.y) * units.step_y + units.first_y,
                  basis);
        float density = e_step(residual_of(standardised(sample.value, units), basis, at), at, resp, dev);
        if (FIRST == 0) log_density.add(density);
#pragma unroll
        for (int k = 0; k < COUNT; ++k) {
            float w = resp[FIRST + k], wd = w * dev[FIRST + k];
            float* mine = sums + k * SUMS_A_COMPONENT;
#pragma unroll
            for (int p = 0; p < P; ++p) mine[p] += w * basis[p];
#pragma unroll
            for (int j = 0; j <= Q; ++j) mine[P + j] += wd * basis[j];
            mine[P + 1 + Q] += wd * dev[FIRST + k];
        }
    }
    return log_density.value();
}

// All sums (N_SUMS) float64 of words[0..n), in shared memory. by_warp: (n_warps, WARP_SUMS + 1) float64 of scratch.
// float32 within a thread and a warp, float64 beyond; callers keep a thread's share to a few hundred samples.
template <int FIRST = 0>
__device__ __forceinline__ void sum_samples(const Word* words, int n, const Units& units, const Densities& at,
                                            double* by_warp, double* sums) {
    constexpr int COUNT = FIRST + COMPONENTS_A_SWEEP > K ? K - FIRST : COMPONENTS_A_SWEEP;
    constexpr int EACH = WARP_SUMS / WARP;
    float mine[WARP_SUMS];
    double log_density = sweep<FIRST, COUNT>(words, n, units, at, mine);
    fold<WARP_SUMS, WARP / 2>(mine);
#pragma unroll
    for (int i = 0; i < EACH; ++i) by_warp[warp_id() * WARP_SUMS + lane_id() * EACH + i] = mine[i];
    if (FIRST == 0) {
        log_density = warp_sum(log_density);
        if (lane_id() == 0) by_warp[n_warps() * WARP_SUMS + warp_id()] = log_density;
    }
    add_warps(by_warp, COUNT * SUMS_A_COMPONENT, sums + FIRST * SUMS_A_COMPONENT);
    if (FIRST == 0 && threadIdx.x == 0) {
        double total = 0.0;
        for (int w = 0; w < n_warps(); ++w) total += by_warp[n_warps() * WARP_SUMS + w];
        sums[LOG_LIKELIHOOD] = LN_2 * total;
    }
    if constexpr (FIRST + COUNT < K)
        sum_samples<FIRST + COUNT>(words, n, units, at, by_warp, sums);
    else
        __syncthreads();
}
