// Fits many mixtures, each by one block or by a team of blocks, from its starts to convergence in one launch
// (METHOD.md 2-4).
#include "fit.cuh"
#if HISTOGRAM
#include "histogram.cuh"
#endif

constexpr int START_BLOCKS = 4;     // starts are compared on about this many of the sample blocks
constexpr int SAMPLE_BLOCK = 512;   // of so many samples, interleaved
constexpr double START_STEP = 4.0;  // longest extrapolation in the short runs

// Counts, standardises; false where there is nothing to fit.
__device__ __forceinline__ bool prepare(const Word* words, i64 m, const Settings& settings, Block& block) {
    FitState* state = block.state;
    measure_all(words, m, false, block);
    if (threadIdx.x == 0) {
        state->n = state->extent[0];
        state->centre = state->extent[0] > 0.0 ? state->extent[1] / state->extent[0] : 0.0;
        bool varies = state->extent[3] > state->extent[2] && isfinite(state->centre);
        bool few = state->n <= 3 * K - 1 + Q;
        state->ended = few ? TOO_FEW : varies ? -1 : DEGENERATE;
        state->n_iter = 0;
    }
    __syncthreads();
    if (state->ended >= 0) return false;
    measure_all(words, m, true, block);
    if (threadIdx.x == 0) {
        state->scale = sqrt(state->extent[1] / state->n);
        state->floor = settings.sigma_floor / state->scale;
        double pull = settings.trend_prior > 0.0 ? state->scale / settings.trend_prior : 0.0;
        state->pull = pull * pull;
        state->units = make_units(state->centre, state->scale, settings.height, settings.width);
    }
    __syncthreads();
    return true;
}

// An even subset of the samples, for the starts. subset: (subset_size(m)) in shared memory.
__device__ __forceinline__ int take_subset(const Word* words, i64 m, Word* subset) {
    i64 n_blocks = (m + SAMPLE_BLOCK - 1) / SAMPLE_BLOCK, stride = max(n_blocks / START_BLOCKS, i64(1));
    i64 chosen = (n_blocks + stride - 1) / stride, each = (m + n_blocks - 1) / n_blocks;
    int size = int(chosen * each);
    for (int s = threadIdx.x; s < size; s += blockDim.x) {
        i64 j = s % chosen * stride + n_blocks * (s / chosen);
        subset[s] = j < m ? words[j] : NO_SAMPLE;
    }
    __syncthreads();
    return size;
}

// One pass over the subset; the best point seen so far is kept, the next one made.
__device__ __forceinline__ void short_step(int number, Block& block) {
    FitState* state = block.state;
    double value = objective(block);
    value = isfinite(value) ? value : -1e300;
    if (value > state->best_value) copy_theta(state->theta, state->best);
    __syncwarp();
    if (lane_id() == 0 && value > state->best_value) state->best_value = value;
    m_step(block.sums, state->theta, true, state->floor, state->pull, &state->work, state->follow);
    copy_theta(state->theta, number % 2 ? state->last : state->first);
    if (number % 2)
        extrapolate(state->first, state->last, state->follow, START_STEP, state->floor, state->theta);
    else
        copy_theta(state->follow, state->theta);
    make_densities(state->theta, &state->at);
}

// Runs every start a few passes on the subset; state->theta is then the best point seen by any of them.
__device__ __forceinline__ void choose_start(const Word* subset, int size, float* sorted, SeedingWork seeding,
                                             const Settings& settings, Block& block) {
    const int kinds[N_STARTS] = {STARTS};
    FitState* state = block.state;
    int room = 1;
    while (room < size) room *= 2;
    for (int s = threadIdx.x; s < room; s += blockDim.x) {
        bool there = s < size && subset[s] != NO_SAMPLE;
        sorted[s] = there ? standardised(unpack(subset[s]).value, state->units) : __uint_as_float(0x7f800000);
    }
    sort_values(sorted, room);
    int count = 0;
    for (int s = threadIdx.x; s < size; s += blockDim.x) count += isfinite(sorted[s]) ? 1 : 0;
    count = int(warp_sum(count));
    if (lane_id() == 0) seeding.below[warp_id()] = count;
    __syncthreads();
    count = 0;
    for (int w = 0; w < n_warps(); ++w) count += seeding.below[w];
    __syncthreads();
    for (int s = 0; s < N_STARTS; ++s)
        start_means(kinds[s], sorted, count, state->stream, seeding, state->means + s * K);
    if (threadIdx.x == 0) state->best_value = -1.7e308;
    for (int s = 0; s < N_STARTS; ++s) {
        if (warp_id() == 0) {
            start_theta(state->means + s * K, N_STARTS == 1 ? state->best : state->theta);
            if (N_STARTS > 1) make_densities(state->theta, &state->at);
        }
        __syncthreads();
        for (int i = 0; i < settings.n_start_iter && N_STARTS > 1; ++i) {
            Densities at = state->at;
            sum_samples(subset, size, state->units, at, block.by_warp, block.sums);
            if (warp_id() == 0) short_step(i, block);
            __syncthreads();
        }
    }
    if (warp_id() == 0) copy_theta(state->best, state->theta);
    __syncthreads();
}

// After a pass: ends the fit or sets the next point to look at; one warp.
__device__ __forceinline__ void advance(const Settings& settings, Block& block) {
    FitState* state = block.state;
    double value = objective(block), gain = settings.tol * state->n;
    if (lane_id() == 0) state->n_iter += 1;
    __syncwarp();
    // A wild extrapolation, or settled point, is taken back; anywhere else there is nothing to go back to.
    if (!isfinite(value) && state->phase != 2 && !(HISTOGRAM && state->settled))
        return end_fit(state, state->theta, value, DEGENERATE);
    m_step(block.sums, state->theta, settings.joint, state->floor, state->pull, &state->work, state->follow);
    // A component that the step loses takes some of the objective with it: the cycles begin anew.
    int k = lane_id();
    bool drops = k < K && state->follow[k] < 0.5 * NO_COMPONENT && state->theta[k] >= 0.5 * NO_COMPONENT;
    drops = __any_sync(FULL_MASK, drops);
    if (settings.joint) {
        advance_cycle(state, value, gain, state->floor);
        drops = drops && state->phase != 0;  // a point taken back drops nothing
    } else if (value - state->first_value <= gain) {
        end_fit(state, state->theta, value, CONVERGED);
    } else {
        copy_theta(state->theta, state->last);
        copy_theta(state->follow, state->theta);
        if (lane_id() == 0) state->last_value = state->first_value = value;
        __syncwarp();
    }
    if (drops && lane_id() == 0) {
        state->first_value = -1e300;
        state->quiet = 0;
    }
    __syncwarp();
    if (state->ended < 0 && state->n_iter >= settings.max_iter)
        end_fit(state, state->last, state->last_value, MAX_ITER);
    make_densities(state->theta, &state->at);
}

#if HISTOGRAM
// Memory for the histogram of a fit; of_blocks: what the teams have for theirs.
__device__ __forceinline__ Histogram make_histogram(Carver& carve, u32* of_blocks, i64 team, int team_size) {
    BinState* state = reinterpret_cast<BinState*>(carve.take<u8>(BIN_STATE_BYTES));
    u32* parts = carve.take<u32>(N_BINS);
    double* times = carve.take<double>(N_BINS);
    return {state, parts, times, of_blocks + 2 * team * team_size * N_BINS};
}
#else
struct Histogram {};
#endif

__device__ __forceinline__ void converge(const Word* words, i64 m, const Settings& settings, Histogram& histogram,
                                         Block& block) {
    FitState* state = block.state;
    if (threadIdx.x == 0) begin_cycles(state);
    if (warp_id() == 0) make_densities(state->theta, &state->at);
    __syncthreads();
    while (state->ended < 0) {
        pass(words, m, block);
#if HISTOGRAM
        if (warp_id() == 0) copy_theta(state->theta, histogram.state->here);
#endif
        if (warp_id() == 0) advance(settings, block);
        __syncthreads();
#if HISTOGRAM
        settle(words, m, settings.tol, histogram, block);
#endif
    }
}

// What a launch writes, grey levels: weights, means, sigmas (F, K), coef (F, Q), log_likelihood (F) float64,
// n_iter, n_samples (F) int32, status (F) uint8.
struct Fits {
    double *weights, *means, *sigmas, *coef, *log_likelihood;
    int *n_iter, *n_samples;
    u8* status;
};

// Components in ascending mean, dropped ones last; NaN where there is nothing. One warp.
__device__ __forceinline__ void write_fit(i64 f, const FitState* state, const Fits& out) {
    const double nan = __longlong_as_double(0x7ff8000000000000ll);
    const double* theta = state->last;
    int k = lane_id(), n_dropped = 0, rank = 0;
    bool fitted = state->ended <= DROPPED;
    for (int j = 0; j < K; ++j) n_dropped += fitted && theta[j] < 0.5 * NO_COMPONENT;
    bool bad = !fitted || n_dropped == K;
    if (k < K) {
        bool here = !bad && theta[k] >= 0.5 * NO_COMPONENT;
        for (int j = 0; j < K; ++j) {
            bool other = !bad && theta[j] >= 0.5 * NO_COMPONENT;
            bool lower = theta[MEANS + j] < theta[MEANS + k] || (theta[MEANS + j] == theta[MEANS + k] && j < k);
            rank += here ? other && lower : other || j < k;
        }
        out.weights[f * K + rank] = here ? exp(theta[k]) : 0.0;
        out.means[f * K + rank] = here ? theta[MEANS + k] * state->scale + state->centre : nan;
        out.sigmas[f * K + rank] = here ? exp(theta[LOG_SIGMAS + k]) * state->scale : nan;
    }
    if (k < Q) out.coef[f * Q + k] = bad ? nan : theta[COEF + k] * state->scale;
    if (k > 0) return;
    double log_likelihood = state->last_value - log_prior(theta, state->pull) - state->n * log(state->scale);
    out.log_likelihood[f] = bad ? nan : log_likelihood;
    out.n_iter[f] = state->n_iter;
    out.n_samples[f] = int(state->n);
    int status = state->ended;
    if (fitted && bad)
        status = DEGENERATE;
    else if (status == CONVERGED && n_dropped)
        status = DROPPED;
    out.status[f] = u8(status);
}

// words (F, m); fit f is frame f % n_frames of replicate f / n_frames, whose numbers are in frames (n_frames) and
// replicates. subset_room, sort_room: places for the starts' subset and, a power of two, for sorting it. team_size
// blocks share a fit; arrived (teams) zero and partials (teams, 2, n_chunks, N_SUMS) are theirs, followed where there is
// a histogram by its parts (teams, 2, team_size, N_BINS) uint32.
extern "C" __global__ __launch_bounds__(THREADS, MIN_BLOCKS) void fit(
    const Word* words, i64 n_fits, i64 m, int height, int width, u32 seed_low, u32 seed_high, u32 rate,
    const u32* replicates, const u32* frames, i64 n_frames, double sigma_floor, double trend_prior, double tol,
    int max_iter, int n_start_iter, int joint, int subset_room, int sort_room, int team_size, u32* arrived,
    double* partials, double* weights, double* means, double* sigmas, double* coef, double* log_likelihood, int* n_iter,
    int* n_samples, u8* status) {
    SHARED_MEMORY(memory);
    Carver carve(memory);
    Settings settings{height, width, sigma_floor, trend_prior, tol, max_iter, n_start_iter, joint != 0};
    Fits out{weights, means, sigmas, coef, log_likelihood, n_iter, n_samples, status};
    Block block;
    block.state = reinterpret_cast<FitState*>(carve.take<u8>(FIT_STATE_BYTES));  // as much as the launch counts
    block.sums = carve.take<double>(N_SUMS);
    block.by_warp = carve.take<double>(THREADS / WARP * (WARP_SUMS + 1));
    SeedingWork seeding{carve.take<double>(THREADS + 1), carve.take<int>(THREADS)};
    Word* subset = carve.take<Word>(subset_room);
    float* sorted = carve.take<float>(sort_room);
    i64 n_teams = gridDim.x / team_size, team = blockIdx.x / team_size;
    block.team = {team_size, int(blockIdx.x % team_size), arrived + team, 0, nullptr, 0};
    if (TEAM) block.team.partials = partials + team * 2 * n_chunks(m) * N_SUMS;
    Histogram histogram;
#if HISTOGRAM
    u32* of_blocks = reinterpret_cast<u32*>(partials + n_teams * 2 * n_chunks(m) * N_SUMS);
    histogram = make_histogram(carve, of_blocks, team, team_size);
#endif
    for (i64 f = team; f < n_fits; f += n_teams) {
        const Word* mine = words + f * m;
        if (threadIdx.x < 2) {
            Words4 drawn = stream_words({seed_low, seed_high, rate}, replicates[f / n_frames], frames[f % n_frames],
                                        STREAM_START, threadIdx.x);
            for (int i = 0; i < 4; ++i) block.state->stream[4 * threadIdx.x + i] = drawn.word[i];
        }
        if (prepare(mine, m, settings, block)) {
            int size = take_subset(mine, m, subset);
            choose_start(subset, size, sorted, seeding, settings, block);
            converge(mine, m, settings, histogram, block);
        }
        if (warp_id() == 0 && block.team.rank == 0) write_fit(f, block.state, out);
        __syncthreads();
    }
}
