// M-steps from one pass's sums, and SQUAREM (METHOD.md 2, 3). Everything here runs in one warp, in float64; lanes share
// the components, the entries of the normal equations and the parameters.
#pragma once
#include "moments.cuh"

constexpr double MIN_COUNT = 2.0;  // a component that holds fewer samples is dropped

// Scratch of a step, in shared memory.
struct StepWork {
    double count[K], precision[K], shift[K], part[K * (Q > 0 ? Q : 1)];
    double normal[Q > 0 ? Q*(Q + 1) : 1];  // (Q, Q + 1), the right-hand side last
};

__device__ __forceinline__ double warp_max(double value) {
    for (int offset = WARP / 2; offset; offset /= 2) {
        double other = __shfl_xor_sync(FULL_MASK, value, offset);
        value = other > value ? other : value;
    }
    return value;
}

#if N_TERMS > 0
// Normal equations of the trend step: given the means, or jointly with them by the Schur complement.
__device__ __forceinline__ void normal_equations(const double* sums, const double* theta, bool joint, double pull,
                                                 StepWork* work) {
    for (int e = lane_id(); e < Q * (Q + 1); e += WARP) {
        int i = e / (Q + 1), j = e % (Q + 1);
        double total = 0.0;
        for (int k = 0; k < K; ++k) {
            double first = resp_sum(sums, k, 1 + i), precision = work->precision[k];
            if (j == Q) {
                total += precision * (dev_sum(sums, k, 1 + i) - work->shift[k] * first);
            } else {
                total += precision * resp_sum(sums, k, PAIR[i * Q + j]);
                if (joint) total -= precision / work->count[k] * first * resp_sum(sums, k, 1 + j);
            }
        }
        if (j == i) total += pull;
        if (j == Q) total -= pull * theta[COEF + i];
        work->normal[e] = total;
    }
    __syncwarp();
}

// Solves them in place: the step is then work->normal[i * (Q + 1) + Q]. A ridge above the rounding of the sums keeps a
// term that the samples cannot see from running away; it shortens steps, it does not move the fixed point.
__device__ __forceinline__ void solve_normal(StepWork* work) {
    double* a = work->normal;
    double largest = 0.0;
    for (int e = lane_id(); e < Q * (Q + 1); e += WARP)
        if (e % (Q + 1) < Q && fabs(a[e]) > largest) largest = fabs(a[e]);
    largest = warp_max(largest);
    bool usable = largest > 0.0 && largest < 1e300;
    for (int e = lane_id(); e < Q * (Q + 1); e += WARP) {
        int i = e / (Q + 1), j = e % (Q + 1);
        double value = usable ? a[e] / largest : j == Q ? a[e] : i == j;
        a[e] = value + (i == j ? 64 * 1.1920928955078125e-07 : 0.0);
    }
    __syncwarp();
    for (int c = 0; c < Q; ++c) {  // Gauss-Jordan; positive definite, so no pivoting
        constexpr int EACH = (Q * (Q + 1) + WARP - 1) / WARP;
        double next[EACH];
        double inverse = 1.0 / a[c * (Q + 1) + c];
        for (int s = 0; s < EACH; ++s) {
            int e = s * WARP + lane_id(), i = e / (Q + 1), j = e % (Q + 1);
            if (i >= Q) continue;
            double pivot_row = a[c * (Q + 1) + j] * inverse;
            next[s] = i == c ? pivot_row : a[e] - a[i * (Q + 1) + c] * pivot_row;
        }
        __syncwarp();
        for (int s = 0; s < EACH; ++s)
            if (s * WARP + lane_id() < Q * (Q + 1)) a[s * WARP + lane_id()] = next[s];
        __syncwarp();
    }
}

__device__ __forceinline__ double trend_step(const StepWork* work, int i) { return work->normal[i * (Q + 1) + Q]; }

// part (K, Q): what the change of the trend adds to each component's sum of squares, term by term.
__device__ __forceinline__ void square_parts(const double* sums, StepWork* work) {
    for (int e = lane_id(); e < K * Q; e += WARP) {
        int k = e / Q, i = e % Q;
        double total = 2.0 * (work->shift[k] * resp_sum(sums, k, 1 + i) - dev_sum(sums, k, 1 + i));
        for (int j = 0; j < Q; ++j) total += resp_sum(sums, k, PAIR[i * Q + j]) * trend_step(work, j);
        work->part[e] = total * trend_step(work, i);
    }
    __syncwarp();
}
#endif

// The next parameters, in `next` (shared, N_PARAMETERS). joint: means and trend together (the fast schedule), or one
// after the other. floor: smallest sigma, pull: precision of the trend's prior, both standardised. Steps start
// from the float32 values that the deviations were taken from.
__device__ __forceinline__ void m_step(const double* sums, const double* theta, bool joint, double floor, double pull,
                                       StepWork* work, double* next) {
    int k = lane_id();
    double count = k < K ? resp_sum(sums, k, 0) : 0.0, shift = 0.0;
    bool alive = k < K && count >= MIN_COUNT && theta[k] > 0.5 * NO_COMPONENT;
    double held = warp_sum(alive ? count : 0.0);
    if (k < K) {
        work->count[k] = alive ? count : 1.0;
        work->precision[k] = alive ? exp(-2.0 * theta[LOG_SIGMAS + k]) : 0.0;
        work->shift[k] = shift = dev_sum(sums, k, 0) / work->count[k];
    }
    __syncwarp();
#if N_TERMS > 0
    normal_equations(sums, theta, joint, pull, work);
    solve_normal(work);
    if (k < K) {
        if (joint)
            for (int i = 0; i < Q; ++i) shift -= resp_sum(sums, k, 1 + i) * trend_step(work, i) / work->count[k];
        work->shift[k] = alive ? shift : 0.0;
    }
    __syncwarp();
    square_parts(sums, work);
    if (k < Q) next[COEF + k] = double(float(theta[COEF + k])) + trend_step(work, k);
#endif
    if (k < K) {
        shift = alive ? shift : 0.0;
        double square = square_sum(sums, k) + shift * (shift * count - 2.0 * dev_sum(sums, k, 0));
#if N_TERMS > 0
        for (int i = 0; i < Q; ++i) square += work->part[k * Q + i];
#endif
        double variance = square / work->count[k];
        variance = variance <= floor * floor ? floor * floor : variance;  // NaN stays NaN
        next[k] = alive ? log(work->count[k] / (held > 1.0 ? held : 1.0)) : NO_COMPONENT;
        next[MEANS + k] = double(float(theta[MEANS + k])) + shift;
        next[LOG_SIGMAS + k] = alive ? 0.5 * log(variance) : theta[LOG_SIGMAS + k];
    }
    __syncwarp();
}

// SQUAREM from three successive iterates (Varadhan & Roland 2008, scheme S3), into `next`; returns the step length.
// limit: largest length allowed; length 1 gives `third` itself. Log sigmas stay above log(floor).
__device__ __forceinline__ double extrapolate(const double* first, const double* second, const double* third,
                                              double limit, double floor, double* next) {
    int i = lane_id();
    bool mine = i < N_PARAMETERS;
    double change = mine ? second[i] - first[i] : 0.0;
    double curvature = mine ? third[i] - second[i] - change : 0.0;
    double length = sqrt(warp_sum(change * change) / (warp_sum(curvature * curvature) + 1e-300));
    length = length < 1.0 ? 1.0 : length;
    length = length > limit ? limit : length;
    double value = mine ? first[i] + 2.0 * length * change + length * length * curvature : 0.0;
    bool weight = i < K, dropped = weight && third[i] < 0.5 * NO_COMPONENT;
    double log_weight = weight && !dropped ? value : NO_COMPONENT;
    double top = warp_max(log_weight);
    double total = warp_sum(weight && !dropped ? exp(log_weight - top) : 0.0);
    if (weight) value = dropped ? NO_COMPONENT : value - (top + log(total));
    if (i >= LOG_SIGMAS && i < COEF) {
        value = value < log(floor) ? log(floor) : value;
        value = value < -40.0 ? -40.0 : value > 40.0 ? 40.0 : value;
    }
    if (mine) next[i] = value;
    __syncwarp();
    return length;
}
