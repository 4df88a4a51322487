// What earlier frames alone expect of the foreground, going forward in time (METHOD.md 6, 8; `from_the_past` of
// mixture/movie_labels.py). Nothing of a frame's own samples enters its expectation.
#include "movie_read.cuh"

// One replicate, frame by frame; in shared memory.
struct Past {
    i64 m;
    Units units;
    const u8* foreground;        // (K)
    const double* pixel_shares;  // (cells, N_WAYS)
    Weights weights;
    u32* made;                   // (K, cells), zero between frames
    float* held;                 // (K, cells)
    double *parts, *cell_parts;  // (n_parts(m), K), (n_parts(cells), N_WAYS)
    Reading* reading;
};

// expected (m) at the samples, their deposits and counts.
__device__ __forceinline__ void read_samples(const Past& job, const Team& team, const Word* words, float* expected) {
    const Densities& at = job.reading->at;
    sum_parts<float, K>(team, job.m, job.parts, [&](i64 i, float (&count)[K]) {
        Word word = words[i];
        float probability = 0.0f;
        if (word != NO_SAMPLE) {
            Read read = read_sample(unpack(word), job.units, at, job.weights);
            deposit(job.weights.maps, job.made, read.row, read.column, read.resp);
            probability = foreground_of(read.weight, job.foreground);
#pragma unroll
            for (int k = 0; k < K; ++k) count[k] += read.resp[k];
        }
        expected[i] = probability;
    });
}

// The expectation in every cell, weighed in each way.
__device__ __forceinline__ void read_cells(const Past& job, const Team& team) {
    const Maps& maps = job.weights.maps;
    sum_parts<double, N_WAYS>(team, maps.n_cells(), job.cell_parts, [&](i64 cell, double (&sums)[N_WAYS]) {
        const double* shares = job.pixel_shares + cell * N_WAYS;
        bool counts = false;
        for (int i = 0; i < N_WAYS; ++i) counts |= shares[i] != 0.0;
        if (!counts) return;
        float prior[K];
        job.weights.at(int(cell) / maps.columns, int(cell) % maps.columns, prior);
        double share = foreground_of(prior, job.foreground);
#pragma unroll
        for (int i = 0; i < N_WAYS; ++i) sums[i] += share * shares[i];
    });
}

// words (m), drift (DRIFT) of the frame; expected (m), means (N_WAYS). Before and after it, the maps are at rest.
__device__ __forceinline__ void expect_frame(const Past& job, const Team& team, const Word* words, const double* drift,
                                             float* expected, double* means) {
    Reading* reading = job.reading;
    const Maps& maps = job.weights.maps;
    if (threadIdx.x == 0) {
        double now[K];
        frame_weights(reading->count, reading->common.alive, now);
        for (int k = 0; k < K; ++k) reading->weights[k] = float(now[k]);
    }
    read_frame(drift, reading);
    make_priors(team, maps, job.weights.pyramid, job.held, reading->weights);
    read_cells(job, team);
    read_samples(job, team, words, expected);
    team.sync();
    for (i64 i = team.first(); i < i64(K) * maps.n_cells(); i += team.stride()) {
        job.held[i] = float(DECAY_PAST) * (job.held[i] + float(job.made[i]) * (1.0f / DEPOSIT_STEPS));
        job.made[i] = 0;
    }
    add_parts<K>(job.m, job.parts, reading->count);
    if (team.rank == 0) add_parts<N_WAYS>(maps.n_cells(), job.cell_parts, means);
    team.sync();
}

// expected (T, m) and means (T, N_WAYS) of a replicate without parameters.
__device__ __forceinline__ void expect_nothing(const Team& team, i64 n, float* expected, int n_means, double* means) {
    for (i64 i = team.first(); i < n; i += team.stride()) expected[i] = __int_as_float(0x7fc00000);
    for (int i = team.first(); i < n_means; i += team.stride()) means[i] = __longlong_as_double(0x7ff8000000000000ll);
}

// words: (R, T, m). usable: (R), 0: all is NaN then. units: (R, 2). common (R, N_COMMON), drift (R, T, DRIFT): as
// movie_settle leaves them. foreground: (R, K). pixel_shares: (cells, N_WAYS) float64, ways to weigh the finest cells.
// expected: (R, T, m) at the samples; means: (R, T, N_WAYS) float64 over the cells.
// Scratch: made (teams, K, cells), zero; held (teams, K, cells); scratch (teams, 2 K cells); parts (teams, n_parts(m) K
// + n_parts(cells) N_WAYS). board: 1 + 2 teams words, zero.
extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
    movie_past(const Word* __restrict__ words, int n_replicates, int n_frames, i64 m, int height, int width,
               int n_levels, const u8* usable, const double* units, const double* common, const double* drift,
               const u8* foreground, const double* pixel_shares, int team_size, float* expected, double* means,
               u32* made, float* held, float* scratch, double* parts, u32* board) {
    SHARED_MEMORY(memory);
    Carver carve(memory);
    Team team = make_team(board, team_size);
    Maps maps = make_maps(height, width, n_levels, 1.0f);
    i64 size = i64(K) * maps.n_cells(), of_samples = n_parts(m) * K, of_cells = n_parts(maps.n_cells()) * N_WAYS;
    Reading* reading = carve.take<Reading>(1);
    static_assert(sizeof(Past) <= PAST_BYTES, "the launch reserves this much");
    Past& job = *reinterpret_cast<Past*>(carve.take<unsigned char>(PAST_BYTES));
    double* sums = parts + team.index * (of_samples + of_cells);
    for (u32 r = next_replicate(team, board); r < u32(n_replicates); r = next_replicate(team, board)) {
        i64 first = i64(r) * n_frames;
        if (!usable[r]) {
            expect_nothing(team, n_frames * m, expected + first * m, n_frames * N_WAYS, means + first * N_WAYS);
            continue;
        }
        if (threadIdx.x == 0)
            job = {m,
                   make_units(units[2 * r], units[2 * r + 1], height, width),
                   foreground + r * K,
                   pixel_shares,
                   {maps, Pyramid(maps, scratch + team.index * 2 * size), reading->weights, true},
                   made + team.index * size,
                   held + team.index * size,
                   sums,
                   sums + of_samples,
                   reading};
        read_common(common + i64(r) * N_COMMON, reading);
        for (i64 i = team.first(); i < size; i += team.stride()) job.held[i] = 0.0f;
        if (threadIdx.x < K) reading->count[threadIdx.x] = 0.0;
        team.sync();
        for (int t = 0; t < n_frames; ++t)
            expect_frame(job, team, words + (first + t) * m, drift + (first + t) * DRIFT, expected + (first + t) * m,
                         means + (first + t) * N_WAYS);
    }
}
