// The mixture of one kernel instance (METHOD.md 1): compile-time sizes, monomials of the trend, where numbers stand.
#pragma once
#include "samples.cuh"

constexpr int K = N_COMPONENTS;
constexpr int Q = N_TERMS;
constexpr int P = N_MONOMIALS;  // 1, the Q terms, and the further products of two of them
constexpr int N_PARAMETERS = 3 * K + Q;
static_assert(N_PARAMETERS <= WARP, "one lane holds one parameter");

// Parameters of a fit on the standardised scale, float64: log weights, means, log sigmas (K each), coefficients (Q).
constexpr int MEANS = K, LOG_SIGMAS = 2 * K, COEF = 3 * K;

// Sums of a pass, float64: per component, sum of w times each monomial (P), sum of w d times (1, f_1..f_Q), sum of
// w d^2; last the log-likelihood. w are responsibilities, d = z - f.beta - delta_k.
constexpr int SUMS_A_COMPONENT = P + 1 + Q + 1;
constexpr int LOG_LIKELIHOOD = K * SUMS_A_COMPONENT;
constexpr int N_SUMS = LOG_LIKELIHOOD + 1;

__device__ __forceinline__ double resp_sum(const double* sums, int k, int p) { return sums[k * SUMS_A_COMPONENT + p]; }
__device__ __forceinline__ double dev_sum(const double* sums, int k, int j) {
    return sums[k * SUMS_A_COMPONENT + P + j];
}
__device__ __forceinline__ double square_sum(const double* sums, int k) {
    return sums[k * SUMS_A_COMPONENT + P + 1 + Q];
}

#if N_TERMS > 0
// Where the product of terms i and j stands among the monomials, (Q, Q).
__constant__ int PAIR[Q * Q] = {PAIR_OF_TERMS};
#endif

constexpr int MOST_POWER = 8;

// All monomials at (x, y), scaled coordinates. Powers that no monomial has are never computed: all loops unroll.
__device__ __forceinline__ void monomials(float x, float y, float (&out)[P]) {
    const int a[P] = {MONOMIAL_X}, b[P] = {MONOMIAL_Y};
    float of_x[MOST_POWER + 1], of_y[MOST_POWER + 1];
    of_x[0] = of_y[0] = 1.0f;
#pragma unroll
    for (int i = 1; i <= MOST_POWER; ++i) {
        of_x[i] = of_x[i - 1] * x;
        of_y[i] = of_y[i - 1] * y;
    }
#pragma unroll
    for (int p = 0; p < P; ++p) out[p] = of_x[a[p]] * of_y[b[p]];
}

// From a stored sample to the standardised model: z = (value - centre) / scale, coordinates from -1 to 1.
struct Units {
    float whole, part;  // centre = whole + part, whole an integer, so that value - whole is exact for grey levels
    float inverse;      // 1 / scale
    float step_x, step_y, first_x, first_y;
};

__device__ __forceinline__ Units make_units(double centre, double scale, int height, int width) {
    double whole = rint(centre);
    return {float(whole),
            float(centre - whole),
            float(1.0 / scale),
            float(2.0 / max(width - 1, 1)),
            float(2.0 / max(height - 1, 1)),
            width > 1 ? -1.0f : 0.0f,
            height > 1 ? -1.0f : 0.0f};
}

__device__ __forceinline__ float standardised(float value, const Units& units) {
    return ((value - units.whole) - units.part) * units.inverse;
}
