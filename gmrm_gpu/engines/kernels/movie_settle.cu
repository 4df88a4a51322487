// Fits movies as a whole, each by a team of blocks, until their parameters settle, in one launch (METHOD.md 6; the same
// algorithm as mixture/movie_settle.py).
#include "movie_steps.cuh"

// What a block works with, in shared memory.
struct Settling {
    const Word* words;  // (T, n) samples of this replicate that the fit sees
    i64 n;
    Maps maps;
    Units units;
    double floor, pull, strength;
    Movie movie;
    u32* made;       // (T, K, cells) deposits
    float* held;     // (T, K, cells), what other frames left
    float* scratch;  // of this block
};

struct Shared {
    Settling job;
    StepState state;
    Tie tie;
    Densities at;
    float weights[K];  // of the frame
};
static_assert(sizeof(Shared) <= MOVIE_STATE_BYTES, "the launch reserves this much");

// The larger, NaN if there is one.
__device__ __forceinline__ double larger(double a, double b) { return b <= a || a != a ? a : b; }

// The theta of every frame; the largest change of a mean or trend coefficient, in the smallest sigma, is kept.
__device__ __forceinline__ void measure_move(const Movie& movie, StepState* state) {
    double most = 0.0;
    for (int i = threadIdx.x; i < movie.n_frames * N_PARAMETERS; i += blockDim.x) {
        int t = i / N_PARAMETERS, j = i % N_PARAMETERS;
        bool is_mean = j >= MEANS && j < LOG_SIGMAS;
        if (j < COEF && !(is_mean && state->now.alive[j - MEANS] > 0.0)) continue;
        most = larger(most, fabs(frame_theta(state->now, movie.drift_of(t), j) - movie.theta[i]));
    }
    for (int offset = WARP / 2; offset; offset /= 2) most = larger(most, __shfl_xor_sync(FULL_MASK, most, offset));
    if (lane_id() == 0) state->by_warp[warp_id()] = most;
    __syncthreads();
    if (threadIdx.x == 0) {
        double smallest = __longlong_as_double(0x7ff0000000000000ll);
        for (int k = 0; k < K; ++k)
            if (state->now.alive[k] > 0.0 && !(state->now.sigmas[k] >= smallest)) smallest = state->now.sigmas[k];
        for (int w = 0; w < n_warps(); ++w) most = larger(most, state->by_warp[w]);
        state->moved = most / smallest;
    }
    __syncthreads();
}

__device__ __forceinline__ void write_theta(const Movie& movie, const Common& now) {
    for (int i = threadIdx.x; i < movie.n_frames * N_PARAMETERS; i += blockDim.x)
        movie.theta[i] = frame_theta(now, movie.drift_of(i / N_PARAMETERS), i % N_PARAMETERS);
}

// The common parameters, extrapolated from three successive iterates (SQUAREM); one thread. Two components of one phase
// trade samples along a ridge that plain steps follow for hundreds of iterations.
__device__ __forceinline__ void leap(StepState* state) {
    constexpr int N = 2 * K + Q;
    Common* now = &state->now;
    double smallest = now->sigmas[0], step[N], bend[N], first[N], size = 0.0, turn = 0.0;
    for (int k = 1; k < K; ++k) smallest = now->sigmas[k] < smallest ? now->sigmas[k] : smallest;
    auto place = [&](const Common& at, int i) {
        return i < K ? at.means[i] / now->sigmas[i] : i < 2 * K ? log(at.sigmas[i - K]) : at.coef[i - 2 * K] / smallest;
    };
    for (int i = 0; i < N; ++i) {
        first[i] = place(state->before[0], i);
        step[i] = place(state->before[1], i) - first[i];
        bend[i] = place(*now, i) - place(state->before[1], i) - step[i];
        size += step[i] * step[i];
        turn += bend[i] * bend[i];
    }
    turn = sqrt(turn);
    double length = sqrt(size) / (turn < 1e-12 ? 1e-12 : turn);
    length = length < 1.0 ? 1.0 : length > LONGEST ? LONGEST : length;
    for (int i = 0; i < N; ++i) {
        double far = first[i] + 2.0 * length * step[i] + length * length * bend[i];
        if (i < K)
            now->means[i] = far * now->sigmas[i];
        else if (i >= 2 * K)
            now->coef[i - 2 * K] = far * smallest;
        bend[i] = far;
    }
    for (int k = 0; k < K; ++k) now->sigmas[k] = exp(bend[K + k]);
}

// All M-steps after a pass; the block of rank 0. Sets state->done. Not inlined: it would take registers from the pass.
__device__ __noinline__ void advance(Shared* shared) {
    const Settling& job = shared->job;
    StepState* state = &shared->state;
    const Movie& movie = job.movie;
    if (threadIdx.x == 0) {
        state->before[state->n_iter % 2] = state->now;
        state->n_iter += 1;
    }
    reweight(movie, state);
    common_step(movie, job.pull, state);
    if (job.strength > 0.0 && movie.n_frames > 1) drift_step(movie, shared->tie, state);
    sigma_step(movie, job.floor, state);
    measure_move(movie, state);
    if (threadIdx.x == 0) {
        // Not "moved > TOL": a fit whose numbers broke down has ended too.
        state->done = state->n_iter == MAX_ITER || !(state->moved > TOL);
        if (!state->done && state->n_iter % 2 == 0) leap(state);
    }
    __syncthreads();
    write_theta(movie, state->now);
}

// The E-step of every frame of this block, with weights from the maps, or from the frames alone.
__device__ __forceinline__ void pass(const Team& team, Shared* shared, float* tables, bool mapped) {
    const Settling& job = shared->job;
    i64 size = i64(K) * job.maps.n_cells();
    Pyramid pyramid(job.maps, job.scratch);
    for (int t = team.rank; t < job.movie.n_frames; t += team.size) {
        u32* made = job.made + t * size;
        for (i64 i = threadIdx.x; i < size; i += blockDim.x) made[i] = 0;
        if (threadIdx.x < K) shared->weights[threadIdx.x] = float(job.movie.weights[t * K + threadIdx.x]);
        if (warp_id() == 0) make_densities(job.movie.theta + t * N_PARAMETERS, &shared->at);
        __syncthreads();
        if (mapped) make_priors(Alone(), job.maps, pyramid, job.held + t * size, shared->weights);
        Weights weights = {job.maps, pyramid, shared->weights, mapped};
        frame_pass(job.words + t * job.n, job.n, job.units, shared->at, weights, made, job.movie.sums_of(t), tables);
    }
}

// What a replicate begins and ends with is not inlined either: it would take registers from the rest.

// Centre and scale of a replicate's pooled samples (n), which the start was fitted to; one block.
__device__ __noinline__ void measure(const Word* words, i64 n, StepState* state, double* units) {
    double centre = 0.0, count = 0.0;
    for (int moment = 0; moment < 2; ++moment) {
        double total = 0.0, number = 0.0;
        for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
            if (words[i] == NO_SAMPLE) continue;
            double value = double(unpack(words[i]).value) - centre;
            total += moment ? value * value : value;
            number += 1.0;
        }
        total = warp_sum(total);
        number = warp_sum(number);
        if (lane_id() == 0) {
            state->by_warp[2 * warp_id()] = total;
            state->by_warp[2 * warp_id() + 1] = number;
        }
        __syncthreads();
        total = count = 0.0;
        for (int w = 0; w < n_warps(); ++w) {
            total += state->by_warp[2 * w];
            count += state->by_warp[2 * w + 1];
        }
        total /= count > 0.0 ? count : 1.0;
        if (threadIdx.x == 0) units[moment] = moment ? sqrt(total) : total;
        if (moment == 0) centre = total;
        __syncthreads();
    }
}

// The even subset (T, n) of words (T, m) that the fit sees, in `taken` if it is not all of them.
__device__ __forceinline__ const Word* take_even(const Team& team, const Word* words, int n_frames, i64 m, i64 n,
                                                 i64 stride, Word* taken) {
    if (n == m) return words;
    for (i64 i = team.first(); i < n_frames * n; i += team.stride()) taken[i] = words[i / n * m + i % m * stride % m];
    return taken;
}

// n_seen (T): samples of each frame among words (T, n).
__device__ __noinline__ void count_samples(const Team& team, const Word* words, int n_frames, i64 n, int* n_seen) {
    for (int t = team.first() / WARP; t < n_frames; t += team.stride() / WARP) {
        int count = 0;
        for (i64 i = lane_id(); i < n; i += WARP) count += words[t * n + i] != NO_SAMPLE;
        count = warp_sum(count);
        if (lane_id() == 0) n_seen[t] = count;
    }
}

// Where the pooled fit of a replicate ended, grey levels: weights, means, sigmas (K), coef (Q).
struct Start {
    const double *weights, *means, *sigmas, *coef;
};

__device__ __noinline__ void begin(Shared* shared, const Start& start, const double* units) {
    const Movie& movie = shared->job.movie;
    Common* now = &shared->state.now;
    double centre = units[0], scale = units[1];
    if (threadIdx.x < K) {
        int k = threadIdx.x;
        bool alive = start.weights[k] > 0.0;
        now->alive[k] = alive ? 1.0 : 0.0;
        now->means[k] = alive ? (start.means[k] - centre) / scale : 0.0;
        now->sigmas[k] = alive ? start.sigmas[k] / scale : 1.0;
    }
    for (int j = threadIdx.x; j < Q_OR_ONE; j += blockDim.x) now->coef[j] = j < Q ? start.coef[j] / scale : 0.0;
    if (threadIdx.x == 0) {
        now->pivot = 0.0;
        shared->state.n_iter = 0;
    }
    make_tie(shared->job.strength, &shared->tie);
    for (int i = threadIdx.x; i < movie.n_frames * K; i += blockDim.x)
        movie.weights[i] = start.weights[i % K] > 0.0 ? start.weights[i % K] : 0.0;
    for (int i = threadIdx.x; i < movie.n_frames * DRIFT; i += blockDim.x) movie.drift[i] = 0.0;
    __syncthreads();
    write_theta(movie, *now);
}

// From the start to the end. done: a word of the team's.
__device__ __forceinline__ void settle(const Team& team, Shared* shared, float* tables, u32* done) {
    const Settling& job = shared->job;
    i64 size = i64(K) * job.maps.n_cells();
    team.sync();
    pass(team, shared, tables, false);
    team.sync();
    for (;;) {
        through_time(team, job.made, job.held, job.movie.n_frames, size);
        team.sync();
        pass(team, shared, tables, true);
        team.sync();
        if (team.rank == 0) {
            advance(shared);
            if (threadIdx.x == 0) *done = shared->state.done;
        }
        team.sync();
        if (*done) return;
    }
}

// What a replicate without parameters leaves: components dropped, no deviations.
__device__ __noinline__ void leave_unfitted(Shared* shared) {
    const Movie& movie = shared->job.movie;
    for (int i = threadIdx.x; i < movie.n_frames * K; i += blockDim.x) movie.weights[i] = 0.0;
    for (int i = threadIdx.x; i < movie.n_frames * DRIFT; i += blockDim.x) movie.drift[i] = 0.0;
    for (int t = threadIdx.x; t < movie.n_frames; t += blockDim.x) movie.sums_of(t)[LOG_LIKELIHOOD] = 0.0;
    double* now = reinterpret_cast<double*>(&shared->state.now);
    for (int i = threadIdx.x; i < N_COMMON; i += blockDim.x) now[i] = 0.0;
    __syncthreads();
    if (threadIdx.x < K) shared->state.now.sigmas[threadIdx.x] = 1.0;
    if (threadIdx.x == 0) {
        shared->state.moved = 0.0;
        shared->state.n_iter = 1;
    }
    __syncthreads();
}

// The results that are not written as they are made.
__device__ __forceinline__ void store(const Shared* shared, double* common, double* log_likelihood, double* moved,
                                      int* n_iter) {
    const double* now = reinterpret_cast<const double*>(&shared->state.now);
    for (int i = threadIdx.x; i < N_COMMON; i += blockDim.x) common[i] = now[i];
    for (int t = threadIdx.x; t < shared->job.movie.n_frames; t += blockDim.x)
        log_likelihood[t] = shared->job.movie.sums_of(t)[LOG_LIKELIHOOD];
    if (threadIdx.x == 0) {
        *moved = shared->state.moved;
        *n_iter = shared->state.n_iter;
    }
}

// words: (R, T, m) samples; of n < m a frame the fit sees an even subset, another in each frame: place
// (t n + i) % m * stride % m is its i-th (`mixture.rows.FrameRows.even`). subset: (teams, T, n), if n < m.
// pooled: (R, n_pooled) samples that start_* was fitted to: (R, K) weights, means, sigmas and (R, Q) coef, grey levels;
// start_status: (R) of these fits; broken: (R), not 0 where a sample is no finite number.
// Results: units (R, 2) centre and scale; standardised: common (R, N_COMMON), weights (R, T, K), drift (R, T, DRIFT),
// log_likelihood (R, T), moved (R), n_iter (R), n_seen (R, T) samples, made (R, T, K, cells) the last pass's deposits.
// Scratch: held (teams, T, K, cells); numbers (teams, T, N_PARAMETERS + N_SUMS + WALK); scratch (blocks, 2 K cells);
// board: 1 + 3 teams words, zero.
extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
    movie_settle(const Word* __restrict__ words, const Word* __restrict__ pooled, i64 n_pooled, int n_replicates,
                 int n_frames, i64 m, i64 n, i64 stride, int height, int width, int n_levels, const u8* start_status,
                 const u32* broken, const double* start_weights, const double* start_means, const double* start_sigmas,
                 const double* start_coef, double sigma_floor, double trend_prior, double strength, int team_size,
                 double* units, double* common, double* weights, double* drift, double* log_likelihood, double* moved,
                 int* n_iter, int* n_seen, u32* made, Word* subset, float* held, double* numbers, float* scratch,
                 u32* board) {
    SHARED_MEMORY(memory);
    Carver carve(memory);
    Shared* shared = reinterpret_cast<Shared*>(carve.take<unsigned char>(MOVIE_STATE_BYTES));
    float* tables = carve.take<float>(n_warps() * TABLE);
    Team team = make_team(board, team_size);
    u32* done = board + 1 + 2 * team.n_teams + team.index;
    i64 size = i64(K) * make_maps(height, width, n_levels, float(PUREST)).n_cells();
    numbers += i64(team.index) * n_frames * (N_PARAMETERS + N_SUMS + WALK);
    for (u32 r = next_replicate(team, board); r < u32(n_replicates); r = next_replicate(team, board)) {
        bool usable = start_status[r] < UNUSABLE && !broken[r];
        i64 frame = i64(r) * n_frames;
        double* unit = units + 2 * r;
        if (team.rank == 0) measure(pooled + r * n_pooled, n_pooled, &shared->state, unit);
        const Word* mine =
            take_even(team, words + frame * m, n_frames, m, n, stride, subset + i64(team.index) * n_frames * n);
        team.sync();
        count_samples(team, mine, n_frames, n, n_seen + frame);
        if (threadIdx.x == 0) {
            double pull = trend_prior > 0.0 ? unit[1] / trend_prior : 0.0;
            Maps maps = make_maps(height, width, n_levels, float(PUREST));
            Movie movie = movie_at(n_frames, weights + frame * K, drift + frame * DRIFT, numbers);
            shared->job = {mine,
                           n,
                           maps,
                           make_units(unit[0], unit[1], height, width),
                           sigma_floor / unit[1],
                           pull * pull,
                           strength,
                           movie,
                           made + frame * size,
                           held + team.index * n_frames * size,
                           scratch + blockIdx.x * 2 * size};
        }
        __syncthreads();
        if (usable) {
            Start start = {start_weights + r * K, start_means + r * K, start_sigmas + r * K, start_coef + r * Q};
            if (team.rank == 0) begin(shared, start, unit);
            settle(team, shared, tables, done);
        }
        if (team.rank) continue;
        if (!usable) leave_unfitted(shared);
        store(shared, common + i64(r) * N_COMMON, log_likelihood + frame, moved + r, n_iter + r);
    }
}
