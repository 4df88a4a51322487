// The residual histogram (METHOD.md 3): weights, means and sigmas settle at a trend without a pass over the samples. The
// same algorithm as mixture/histogram.py. What the sums over the bins lack where a pass has been is added everywhere,
// so the fixed point is that of the samples. float64: it has to tell gains a hundredth of the tolerance.
#pragma once
#include "fit.cuh"

constexpr int N_BINS = HISTOGRAM;
constexpr int PARTS = 64;            // a sample is shared between the two bins beside it, in so many parts
constexpr double BIN_REACH = 6.0;    // the bins end so many sigmas beyond the means
constexpr double COARSE = 0.5;       // bins wider than this part of the smallest sigma tell too little
constexpr int MOST_BIN_STEPS = 300;  // steps on the bins for one on the samples
constexpr int MOST_REFUSED = 3;      // so often a histogram may lead downhill
constexpr double BIN_GAIN = 0.01;    // of the tolerance
constexpr int BIN_SUMS = 3 * K + 1;  // sum of w, of w d, of w d^2 (K each), log-likelihood

struct BinState {
    Cycle cycle;                // coefficients in it never change
    double here[N_PARAMETERS];  // where the pass was
    double missing[3 * K];      // what sums of w, w r, w r^2 over the bins lack
    double sums[BIN_SUMS];
    double level[K], inverse[K], mean[K];
    double low, width;
    int fine;
    Densities at;
};
static_assert(sizeof(BinState) <= BIN_STATE_BYTES, "engines.fused.fit reserves less than a histogram keeps");

struct Histogram {
    BinState* state;
    u32* parts;      // (N_BINS) of this block's samples
    double* times;   // (N_BINS) how often a bin counts
    u32* of_blocks;  // (2, team_size, N_BINS) in device memory
};

// First centre and width of the bins at theta, all within six sigmas of a mean and the range of the residuals; one warp.
__device__ __forceinline__ void make_grid(const double* theta, const FitState* state, BinState* bins) {
    int k = lane_id();
    bool alive = k < K && theta[k] > 0.5 * NO_COMPONENT;
    double mean = alive ? theta[MEANS + k] : 0.0, sigma = alive ? exp(theta[LOG_SIGMAS + k]) : 0.0;
    double bend = warp_sum(k < Q ? fabs(theta[COEF + k]) : 0.0);  // no term is larger than one
    double low = -warp_max(alive ? BIN_REACH * sigma - mean : -1e300);
    double high = warp_max(alive ? mean + BIN_REACH * sigma : -1e300);
    double least = -warp_max(alive ? -sigma : -1e300);
    double lowest = (state->extent[2] - state->centre) / state->scale - bend;
    double highest = (state->extent[3] - state->centre) / state->scale + bend;
    low = low > lowest ? low : lowest;
    high = high < highest ? high : highest;
    make_densities(theta, &bins->at);
    if (k == 0) {
        bins->low = low;
        bins->width = (high - low) / (N_BINS - 1);
        bins->fine = bins->width > 0.0 && bins->width <= COARSE * least;
    }
    __syncwarp();
}

// Adds words[0..n) to the parts; whole numbers, so the order of threads does not matter.
__device__ __forceinline__ void count_parts(const Word* words, i64 n, const Units& units, const BinState* bins,
                                            u32* parts) {
    float low = float(bins->low), inverse = float(1.0 / bins->width);
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
        Word word = words[i];
        if (word == NO_SAMPLE) continue;
        Sample sample = unpack(word);
        float basis[P];
        monomials(float(sample.x) * units.step_x + units.first_x, float(sample.y) * units.step_y + units.first_y,
                  basis);
        float place = (residual_of(standardised(sample.value, units), basis, bins->at) - low) * inverse;
        place = place > 0.0f ? place : 0.0f;
        place = place < N_BINS - 1.0f ? place : N_BINS - 1.0f;
        int left = min(int(place), N_BINS - 2);
        u32 upper = u32((place - float(left)) * PARTS + 0.5f);
        atomicAdd(parts + left, PARTS - upper);
        atomicAdd(parts + left + 1, upper);
    }
}

// Bins of all samples at the trend of theta; false where they would be too coarse. The whole block, or team.
__device__ __forceinline__ bool fill_bins(const Word* words, i64 m, const double* theta, Histogram& histogram,
                                          Block& block) {
    BinState* bins = histogram.state;
    if (warp_id() == 0) make_grid(theta, block.state, bins);
    for (int b = threadIdx.x; b < N_BINS; b += blockDim.x) histogram.parts[b] = 0;
    __syncthreads();
    if (!bins->fine) return false;
#if TEAM
    Team& team = block.team;
    for (int c = team.rank; c < n_chunks(m); c += team.size)
        count_parts(words + i64(c) * CHUNK, min(i64(CHUNK), m - i64(c) * CHUNK), block.state->units, bins,
                    histogram.parts);
    u32* all = histogram.of_blocks + i64(team.turn) * team.size * N_BINS;
    __syncthreads();
    for (int b = threadIdx.x; b < N_BINS; b += blockDim.x) all[i64(team.rank) * N_BINS + b] = histogram.parts[b];
    team.turn ^= 1;
    team.meet();
    for (int b = threadIdx.x; b < N_BINS; b += blockDim.x) {
        u64 total = 0;
        for (int r = 0; r < team.size; ++r) total += all[i64(r) * N_BINS + b];
        histogram.times[b] = double(total) / PARTS;
    }
#else
    count_parts(words, m, block.state->units, bins, histogram.parts);
    __syncthreads();
    for (int b = threadIdx.x; b < N_BINS; b += blockDim.x) histogram.times[b] = double(histogram.parts[b]) / PARTS;
#endif
    __syncthreads();
    return true;
}

// The densities at theta; one warp.
__device__ __forceinline__ void make_bin_densities(const double* theta, BinState* bins) {
    int k = lane_id();
    if (k < K) {
        bool alive = theta[k] > 0.5 * NO_COMPONENT;
        bins->level[k] = alive ? theta[k] - theta[LOG_SIGMAS + k] - HALF_LOG_2PI : NO_COMPONENT;
        bins->inverse[k] = alive ? exp(-theta[LOG_SIGMAS + k]) : 0.0;
        bins->mean[k] = theta[MEANS + k];
    }
    __syncwarp();
}

// bins->sums at the densities; the whole block. by_warp: (n_warps, BIN_SUMS) of scratch.
__device__ __forceinline__ void sum_bins(const double* times, BinState* bins, double* by_warp) {
    double mine[BIN_SUMS];
#pragma unroll
    for (int i = 0; i < BIN_SUMS; ++i) mine[i] = 0.0;
    for (int b = threadIdx.x; b < N_BINS; b += blockDim.x) {
        double residual = bins->low + b * bins->width, resp[K], top = NO_COMPONENT, total = 0.0;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            double scaled = (residual - bins->mean[k]) * bins->inverse[k];
            resp[k] = bins->level[k] - 0.5 * scaled * scaled;
            top = resp[k] > top ? resp[k] : top;
        }
#pragma unroll
        for (int k = 0; k < K; ++k) total += resp[k] = exp(resp[k] - top);
        double share = times[b] / total;
        mine[3 * K] += times[b] * (top + log(total));
#pragma unroll
        for (int k = 0; k < K; ++k) {
            double w = share * resp[k], deviation = residual - bins->mean[k];
            mine[k] += w;
            mine[K + k] += w * deviation;
            mine[2 * K + k] += w * deviation * deviation;
        }
    }
#pragma unroll
    for (int i = 0; i < BIN_SUMS; ++i) {
        mine[i] = warp_sum(mine[i]);
        if (lane_id() == 0) by_warp[warp_id() * BIN_SUMS + i] = mine[i];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < BIN_SUMS; i += blockDim.x) {
        double total = 0.0;
        for (int w = 0; w < n_warps(); ++w) total += by_warp[w * BIN_SUMS + i];
        bins->sums[i] = total;
    }
    __syncthreads();
}

// What the bins' sums at bins->here lack of those of the pass there, about zero instead of the means; one warp.
__device__ __forceinline__ void make_missing(const double* sums, BinState* bins) {
    int k = lane_id();
    if (k < K) {
        double mean = double(float(bins->here[MEANS + k])),
               own = bins->mean[k];  // as the pass took it, as the bins did
        double count = resp_sum(sums, k, 0), dev = dev_sum(sums, k, 0), square = square_sum(sums, k);
        const double* binned = bins->sums + k;
        bins->missing[k] = count - binned[0];
        bins->missing[K + k] = dev + mean * count - (binned[K] + own * binned[0]);
        bins->missing[2 * K + k] =
            square + mean * (2.0 * dev + mean * count) - (binned[2 * K] + own * (2.0 * binned[K] + own * binned[0]));
    }
    __syncwarp();
}

// One step on the bins, whose sums are there: ends the cycles or sets the next point; one warp. What is maximised is the
// log-likelihood of the bins, and that of what they lack as if its components were known.
__device__ __forceinline__ void advance_bins(BinState* bins, double gain, double floor) {
    Cycle* cycle = &bins->cycle;
    int k = lane_id();
    double count = 0.0, shift = 0.0, variance = 1.0, value = 0.0;
    bool there = k < K && cycle->theta[k] > 0.5 * NO_COMPONENT;
    if (there) {
        double mean = bins->mean[k], inverse = bins->inverse[k], lacked = bins->missing[k];
        double dev = bins->missing[K + k] - mean * lacked;
        double square = bins->missing[2 * K + k] - mean * (bins->missing[K + k] + dev);
        value = lacked * (cycle->theta[k] - cycle->theta[LOG_SIGMAS + k]) - 0.5 * inverse * inverse * square;
        count = bins->sums[k] + lacked;
        shift = (bins->sums[K + k] + dev) / count;
        variance = (bins->sums[2 * K + k] + square) / count - shift * shift;
    }
    value = bins->sums[3 * K] + warp_sum(value);
    bool alive = there && count >= MIN_COUNT;
    double held = warp_sum(alive ? count : 0.0);
    copy_theta(cycle->theta, cycle->follow);
    if (k < K) {
        variance = variance <= floor * floor ? floor * floor : variance;  // NaN stays NaN
        cycle->follow[k] = alive ? log(count / (held > 1.0 ? held : 1.0)) : NO_COMPONENT;
        if (alive) cycle->follow[MEANS + k] += shift;
        if (alive) cycle->follow[LOG_SIGMAS + k] = 0.5 * log(variance);
    }
    if (k == 0) cycle->n_iter += 1;
    __syncwarp();
    if (!isfinite(value) && cycle->phase != 2) return end_fit(cycle, cycle->theta, value, DEGENERATE);
    advance_cycle(cycle, value, gain, floor);
    if (cycle->ended < 0 && cycle->n_iter >= MOST_BIN_STEPS) end_fit(cycle, cycle->last, cycle->last_value, MAX_ITER);
    make_bin_densities(cycle->theta, bins);
}

// After a pass at bins->here, settles the point that comes next, where its fit gains and nothing was taken back; the
// whole block, or team.
__device__ __forceinline__ void settle(const Word* words, i64 m, double tol, Histogram& histogram, Block& block) {
    FitState* state = block.state;
    BinState* bins = histogram.state;
    bool known = state->settled;
    bool wanted = state->ended < 0 && state->phase != 0 && state->quiet == 0 && state->refused < MOST_REFUSED;
    __syncthreads();
    if (threadIdx.x == 0) state->settled = 0;
    __syncthreads();
    if (!wanted || (!known && !fill_bins(words, m, bins->here, histogram, block))) return;
    if (warp_id() == 0) make_bin_densities(bins->here, bins);
    __syncthreads();
    sum_bins(histogram.times, bins, block.by_warp);
    if (warp_id() == 0) make_missing(block.sums, bins);
    if (!fill_bins(words, m, state->theta, histogram, block)) return;
    Cycle* cycle = &bins->cycle;
    if (threadIdx.x == 0) {
        begin_cycles(cycle);
        cycle->n_iter = 0;
        cycle->ended = -1;
    }
    if (warp_id() == 0) {
        copy_theta(state->theta, cycle->theta);
        make_bin_densities(cycle->theta, bins);
    }
    __syncthreads();
    while (cycle->ended < 0) {
        sum_bins(histogram.times, bins, block.by_warp);
        if (warp_id() == 0) advance_bins(bins, BIN_GAIN * tol * state->n, state->floor);
        __syncthreads();
    }
    if (warp_id() == 0) {
        int i = lane_id();
        bool sound = i >= N_PARAMETERS || isfinite(cycle->last[i]);
        // Only a step on the samples may drop a component.
        if (i < K && cycle->last[i] <= 0.5 * NO_COMPONENT && state->theta[i] > 0.5 * NO_COMPONENT) sound = false;
        if (__all_sync(FULL_MASK, sound)) copy_theta(cycle->last, state->theta);
        make_densities(state->theta, &state->at);
        if (lane_id() == 0) state->settled = 1;
    }
    __syncthreads();
}
