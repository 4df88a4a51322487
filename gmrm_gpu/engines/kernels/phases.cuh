// From components to phases (METHOD.md 5), as gmrm_gpu/classify.py decides.
#pragma once
#include "common.cuh"

#define BRIGHTEST 0
#define DARKEST 1
#define SEPARATED 2
#define NAMED 3

#define BRIGHT 0
#define DARK 1
#define BOTH 2

struct PhaseRule {
    int rule, polarity;
    int foreground;   // named: the foreground's phase
    u32 named;        // named: four bits a component, its phase
    double contrast;  // separated
};

// First component of largest key; `sign` times the means of those present, or (means null) the weights.
__device__ __forceinline__ int first_largest(const double* weights, const double* means, double sign) {
    int best = 0;
    double largest = -1e300;
    for (int k = 0; k < N_COMPONENTS; ++k) {
        double key = means ? (weights[k] > 0 ? sign * means[k] : -1e300) : weights[k];
        if (key > largest) {
            best = k;
            largest = key;
        }
    }
    return best;
}

// Which components are foreground, one bit each. weights, means, sigmas: (K,) of one fit, dropped ones with weight 0.
__device__ inline u32 foreground_bits(const PhaseRule& rule, const double* weights, const double* means,
                                      const double* sigmas) {
    u32 present = 0, chosen = 0;
    for (int k = 0; k < N_COMPONENTS; ++k) present |= u32(weights[k] > 0) << k;
    if (rule.rule == BRIGHTEST || rule.rule == DARKEST) {
        chosen = 1u << first_largest(weights, means, rule.rule == BRIGHTEST ? 1.0 : -1.0);
    } else if (rule.rule == SEPARATED) {
        int heaviest = first_largest(weights, nullptr, 1.0);
        for (int k = 0; k < N_COMPONENTS; ++k) {
            double distance = (means[k] - means[heaviest]) / sigmas[heaviest];
            double side = rule.polarity == BRIGHT ? distance : rule.polarity == DARK ? -distance : fabs(distance);
            chosen |= u32(side > rule.contrast) << k;
        }
    } else {
        for (int k = 0; k < N_COMPONENTS; ++k) chosen |= u32((rule.named >> 4 * k & 15) == rule.foreground) << k;
    }
    return chosen & present;
}

// Each component's phase, four bits each: its name's, or 1 for foreground and 0 for the rest.
__device__ __forceinline__ u32 phases_of(const PhaseRule& rule, u32 foreground) {
    if (rule.rule == NAMED) return rule.named;
    u32 phases = 0;
    for (int k = 0; k < N_COMPONENTS; ++k) phases |= (foreground >> k & 1) << 4 * k;
    return phases;
}
