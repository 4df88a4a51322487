// Labels the samples of finished fits: the phase of each sample's likeliest component, the mean posterior of the
// foreground, raw counts, and the bit maps that the vote reads.
//
// Compile-time: as density.cuh.
#include "density.cuh"
#include "maps.cuh"
#include "phases.cuh"

#define N_THREADS 256
#define UNUSABLE 3  // first of the FitStatus values without parameters

struct LabelWork {
    u32 chosen, phase_of;  // see phases.cuh
    double parts[N_THREADS / WARP];
};

struct Labelled {
    int component;
    float posterior;  // of the foreground
};

// Posterior in float32. Where two components are so near that float32 may misplace them, float64 decides.
__device__ __forceinline__ Labelled label_one(Sample sample, const Densities<float>& model, const FitDensities* fit,
                                              float slack, float slope, u32 foreground) {
    float density[N_COMPONENTS];
    model.at(sample, density);
    float top = density[0], second = -3e38f, whole = 0.0f, part = 0.0f;
#pragma unroll
    for (int k = 1; k < N_COMPONENTS; ++k) {
        second = max(second, min(top, density[k]));
        top = max(top, density[k]);
    }
    int best = likeliest(density);
#pragma unroll
    for (int k = 0; k < N_COMPONENTS; ++k) {
        float odds = exp2f(density[k] - top);
        whole += odds;
        part += foreground >> k & 1 ? odds : 0.0f;
    }
    if (N_COMPONENTS > 1 && top - second <= slack - slope * second) {
        double exact[N_COMPONENTS];
        fit->exact.at(sample, exact);
        best = likeliest(exact);
    }
    return {best, part / whole};
}

__device__ __forceinline__ void decide_phases(LabelWork* work, PhaseRule rule, const double* weights,
                                              const double* means, const double* sigmas) {
    if (threadIdx.x != 0) return;
    work->chosen = foreground_bits(rule, weights, means, sigmas);
    work->phase_of = phases_of(rule, work->chosen);
}

// Sum over the block, in thread 0; the warps' sums are added in their order.
__device__ __forceinline__ double block_sum(double value, double* parts) {
    value = warp_sum(value);
    if (lane_id() == 0) parts[warp_id()] = value;
    __syncthreads();
    double sum = parts[0];
    for (int warp = 1; warp < N_THREADS / WARP; ++warp) sum += parts[warp];
    return sum;
}

// Block b has `length` samples from (b % chunks) * length of fit b / chunks. F = R * T fits.
//
// samples: (F, m). weights, means, sigmas: (F, K), coef: (F, Q), status: (F,), in grey levels.
// labels: (F, m). posterior: (F, chunks), sums of the foreground's posterior over a block's samples, NaN for unusable
// fits. n_foreground: (F,) zero before; samples labelled foreground. maps: see maps.cuh, zero before; or null.
extern "C" __global__ void __launch_bounds__(N_THREADS)
    label(const Word* __restrict__ samples, const double* __restrict__ weights, const double* __restrict__ means,
          const double* __restrict__ sigmas, const double* __restrict__ coef, const u8* __restrict__ status,
          u8* __restrict__ labels, double* __restrict__ posterior, int* __restrict__ n_foreground,
          u32* __restrict__ maps, int m, int length, int chunks, int height, int width, int n_phases, int rule,
          int polarity, int foreground, u32 named, double contrast) {
    SHARED_MEMORY(memory);
    Carver carve(memory);
    FitDensities* shared = carve.take<FitDensities>(1);
    LabelWork* work = carve.take<LabelWork>(1);
    i64 fit = blockIdx.x / chunks;
    int start = blockIdx.x % chunks * length, stop = min(start + length, m), words = (width + 31) / 32;
    bool usable = status[fit] < UNUSABLE;
    const double *weight = weights + fit * N_COMPONENTS, *mean = means + fit * N_COMPONENTS;
    const double* sigma = sigmas + fit * N_COMPONENTS;
    decide_phases(work, {rule, polarity, foreground, named, contrast}, weight, mean, sigma);
    make_densities(shared, weight, mean, sigma, coef + fit * N_TERMS, height, width);

    u32 chosen = work->chosen, phase_of = work->phase_of;
    Densities<float> model = shared->single;
    float slack = shared->slack, slope = shared->slope;
    double sum = 0.0;
    int found = 0;
    for (int j = start + threadIdx.x; j < stop; j += N_THREADS) {
        Word word = samples[fit * m + j];
        int phase = NOT_VISITED;
        if (usable && word != NO_SAMPLE) {
            Sample sample = unpack(word);
            Labelled one = label_one(sample, model, shared, slack, slope, chosen);
            phase = phase_of >> 4 * one.component & 15;
            sum += one.posterior;
            found += phase == foreground;
            if (maps) paint(maps, fit, n_phases, phase, words, height, sample.x, sample.y);
        }
        labels[fit * m + j] = u8(phase);
    }

    found = warp_sum(found);
    if (lane_id() == 0 && found) atomicAdd(n_foreground + fit, found);
    sum = block_sum(sum, work->parts);
    if (threadIdx.x == 0) posterior[blockIdx.x] = usable ? sum : __longlong_as_double(0x7ff8000000000000ll);
}
