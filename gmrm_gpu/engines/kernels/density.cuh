// How likely each component makes a sample, from the parameters of a finished fit in grey levels.
//
// Compile-time: N_COMPONENTS, N_TERMS, TERM_X and TERM_Y (exponents of the trend's terms), WIDE.
#pragma once
#include "samples.cuh"

#define MOST_EXPONENT 4
#define ROOT_HALF_LOG2_E 0.849321800288019  // sqrt(log2(e) / 2)
#define FLOAT_SLACK (1.0 / 131072.0)

// f . beta at the scaled coordinates.
template <class T>
__device__ __forceinline__ T trend(const T (&coef)[N_TERMS + 1], T x, T y) {
    T sum = 0;
#if N_TERMS > 0
    const int a[N_TERMS] = {TERM_X}, b[N_TERMS] = {TERM_Y};
    T of_x[MOST_EXPONENT + 1], of_y[MOST_EXPONENT + 1];
    of_x[0] = of_y[0] = 1;
#pragma unroll
    for (int i = 1; i <= MOST_EXPONENT; ++i) {
        of_x[i] = of_x[i - 1] * x;
        of_y[i] = of_y[i - 1] * y;
    }
#pragma unroll
    for (int j = 0; j < N_TERMS; ++j) sum += coef[j] * (of_x[a[j]] * of_y[b[j]]);
#endif
    return sum;
}

// log2 of a component's density at z, but for a constant common to all: level - ((z - f.beta - mean) scale)^2, with
// level = log2(p / sigma) and scale = sqrt(log2(e) / 2) / sigma. Means and z are less `centre`, a whole number.
template <class T>
struct Densities {
    T centre, step_x, step_y, first_x, first_y;
    T level[N_COMPONENTS], mean[N_COMPONENTS], scale[N_COMPONENTS], coef[N_TERMS + 1];

    __device__ __forceinline__ void at(Sample sample, T (&density)[N_COMPONENTS]) const {
        T residual = T(sample.value) - centre;
        residual -= trend(coef, T(sample.x) * step_x + first_x, T(sample.y) * step_y + first_y);
#pragma unroll
        for (int k = 0; k < N_COMPONENTS; ++k) {
            T distance = (residual - mean[k]) * scale[k];
            density[k] = level[k] - distance * distance;
        }
    }
};

// Both precisions, in shared memory. Two float densities differ by more than `slack - slope * second`, second being
// the smaller, only if their order is right: a density's error is at most e = 2^-17 (8 + u (reach + u)) with u^2 its
// square term, reach = scale (sum |beta| + |mean|) in the same units, and u^2 <= top level - second.
struct FitDensities {
    Densities<float> single;
    Densities<double> exact;
    float slack, slope;
};

template <class T>
__device__ __forceinline__ void scale_coordinates(Densities<T>& out, int height, int width) {
    out.step_x = T(2.0 / max(width - 1, 1));
    out.step_y = T(2.0 / max(height - 1, 1));
    out.first_x = width > 1 ? T(-1) : T(0);
    out.first_y = height > 1 ? T(-1) : T(0);
}

// weights, means, sigmas: (K,), coef: (Q,) of one fit. The whole block; ends with a barrier.
__device__ inline void make_densities(FitDensities* out, const double* weights, const double* means,
                                      const double* sigmas, const double* coef, int height, int width) {
    int i = threadIdx.x;
    double centre = weights[0] > 0 ? rint(means[0]) : 0.0;
    if (i < N_COMPONENTS) {
        bool present = weights[i] > 0;
        out->exact.mean[i] = present ? means[i] - centre : 0.0;
        out->exact.scale[i] = present ? ROOT_HALF_LOG2_E / sigmas[i] : 0.0;
        out->exact.level[i] = present ? log2(weights[i] / sigmas[i]) : NO_COMPONENT;
        out->single.mean[i] = float(out->exact.mean[i]);
        out->single.scale[i] = float(out->exact.scale[i]);
        out->single.level[i] = float(out->exact.level[i]);
    }
    if (i < N_TERMS) {
        out->exact.coef[i] = coef[i];
        out->single.coef[i] = float(coef[i]);
    }
    __syncthreads();
    if (i == 0) {
        out->exact.centre = centre;
        out->single.centre = float(centre);
        scale_coordinates(out->exact, height, width);
        scale_coordinates(out->single, height, width);
        double bend = 0.0, reach = 0.0, top = NO_COMPONENT;
        for (int j = 0; j < N_TERMS; ++j) bend += fabs(out->exact.coef[j]);
        for (int k = 0; k < N_COMPONENTS; ++k) {
            reach = max(reach, out->exact.scale[k] * (bend + fabs(out->exact.mean[k])));
            top = max(top, out->exact.level[k]);
        }
        // u reach <= reach (1 + u^2) / 2 spares a square root a sample.
        out->slope = float(FLOAT_SLACK * (1.0 + reach));
        out->slack = float(FLOAT_SLACK * (8.0 + (1.0 + reach) * (1.0 + top)));
    }
    __syncthreads();
}

// The first component of largest density.
template <class T>
__device__ __forceinline__ int likeliest(const T (&density)[N_COMPONENTS]) {
    int best = 0;
    T top = density[0];
#pragma unroll
    for (int k = 1; k < N_COMPONENTS; ++k) {
        best = density[k] > top ? k : best;
        top = max(top, density[k]);
    }
    return best;
}
