// Starting values (METHOD.md 4): several, since one that puts no component on a rare phase never finds it.
#pragma once
#include "step.cuh"

#define QUANTILE 1
#define SPREAD 2
#define KMEANS 3

// Sorts values[0..size), size a power of two, ascending; the whole block. Bitonic (Batcher 1968).
__device__ __forceinline__ void sort_values(float* values, int size) {
    for (int run = 2; run <= size; run *= 2) {
        for (int gap = run / 2; gap; gap /= 2) {
            __syncthreads();
            for (int pair = threadIdx.x; pair < size / 2; pair += blockDim.x) {
                int low = pair / gap * (2 * gap) + pair % gap, high = low + gap;
                bool falling = low & run;
                float a = values[low], b = values[high];
                if ((a > b) != falling) {
                    values[low] = b;
                    values[high] = a;
                }
            }
        }
    }
    __syncthreads();
}

__device__ __forceinline__ double value_at(const float* sorted, int count, double level) {
    int index = min(int(level * count), max(count - 1, 0));
    float found = sorted[max(index, 0)];
    return isfinite(found) ? double(found) : 0.0;
}

// Scratch of k-means++ in shared memory: one number a thread each.
struct SeedingWork {
    double* mass;
    int* below;
};

__device__ __forceinline__ double mass_of(double value, const double* centres, int n_centres) {
    double least = 1.0;
    for (int c = 0; c < n_centres; ++c) {
        double distance = (value - centres[c]) * (value - centres[c]);
        least = c == 0 || distance < least ? distance : least;
    }
    return least;
}

// Index of the first value at which the running sum of masses reaches `u` of the whole; the whole block.
__device__ __forceinline__ int drawn_index(const float* sorted, int count, const double* centres, int n_centres,
                                           double u, SeedingWork work) {
    int each = (count + blockDim.x - 1) / blockDim.x;
    int first = threadIdx.x * each, last = min(first + each, count);
    double own = 0.0;
    for (int i = first; i < last; ++i) own += mass_of(sorted[i], centres, n_centres);
    work.mass[threadIdx.x] = own;
    __syncthreads();
    if (threadIdx.x == 0) {  // running sums before each thread's part, the whole last
        double before = 0.0;
        for (int t = 0; t < blockDim.x; ++t) {
            double here = work.mass[t];
            work.mass[t] = before;
            before += here;
        }
        work.mass[blockDim.x] = before;
    }
    __syncthreads();
    double running = work.mass[threadIdx.x], target = u * work.mass[blockDim.x];
    int below = 0;
    for (int i = first; i < last; ++i) {
        running += mass_of(sorted[i], centres, n_centres);
        below += running < target;
    }
    work.below[threadIdx.x] = below;
    __syncthreads();
    int index = 0;
    for (int t = 0; t < blockDim.x; ++t) index += work.below[t];
    __syncthreads();
    return min(index, max(count - 1, 0));
}

// k-means++ seeding (Arthur & Vassilvitskii 2007): each centre drawn with the squared distance to the nearest.
// words: (K) random numbers. centres: (K) in shared memory, ascending at the end.
__device__ __forceinline__ void seed_centres(const float* sorted, int count, const u32* words, SeedingWork work,
                                             double* centres) {
    for (int k = 0; k < K; ++k) {
        int index = drawn_index(sorted, count, centres, k, (words[k] + 0.5) * 2.3283064365386963e-10, work);
        if (threadIdx.x == 0) centres[k] = count ? double(sorted[index]) : 0.0;
        __syncthreads();
    }
    if (threadIdx.x == 0)
        for (int i = 1; i < K; ++i)
            for (int j = i; j > 0 && centres[j - 1] > centres[j]; --j) {
                double swap = centres[j];
                centres[j] = centres[j - 1];
                centres[j - 1] = swap;
            }
    __syncthreads();
}

// Means of one start into `means` (K) in shared memory; the whole block.
__device__ __forceinline__ void start_means(int kind, const float* sorted, int count, const u32* words,
                                            SeedingWork work, double* means) {
    if (kind == KMEANS) {
        seed_centres(sorted, count, words, work, means);
        return;
    }
    if (threadIdx.x < K) {
        double step = (threadIdx.x + 0.5) / K;
        double low = value_at(sorted, count, 0.002), high = value_at(sorted, count, 0.998);
        means[threadIdx.x] = kind == QUANTILE ? value_at(sorted, count, step) : low + (high - low) * step;
    }
    __syncthreads();
}

// Parameters with these means, equal weights and sigmas, no trend; one warp.
__device__ __forceinline__ void start_theta(const double* means, double* theta) {
    int i = lane_id();
    double low = means[0], high = means[0];
    for (int k = 1; k < K; ++k) {
        low = means[k] < low ? means[k] : low;
        high = means[k] > high ? means[k] : high;
    }
    double sigma = K > 1 ? (high - low) / (2.0 * (K > 1 ? K - 1 : 1)) : 1.0;
    if (K > 1) sigma = sigma < 0.1 ? 0.1 : sigma > 1.0 ? 1.0 : sigma;
    if (i < K) {
        theta[i] = -log(double(K));
        theta[MEANS + i] = means[i];
        theta[LOG_SIGMAS + i] = log(sigma);
    }
    if (i < Q) theta[COEF + i] = 0.0;
    __syncwarp();
}
