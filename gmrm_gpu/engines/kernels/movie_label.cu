// Labels of all samples of fitted movies: the finest maps settle, then each sample is read with what all other frames
// left (METHOD.md 6; `remap` and `two_sided` of mixture/movie_labels.py).
#include "movie_read.cuh"

// One replicate; T frames of m places.
struct Labelling {
    const Word* words;  // (T, m)
    i64 m;
    Units units;
    int n_frames;
    const double* drift;  // (T, DRIFT)
    double* weights;      // (T, K), of this reading
    float* held;          // (T, K, cells)
    float* scratch;       // of this block
    double* parts;        // of this block, (n_parts(m), K)
    Reading* reading;
};

__device__ __forceinline__ Weights open_frame(const Labelling& job, const Maps& maps, const Pyramid& pyramid, int t) {
    Reading* reading = job.reading;
    if (threadIdx.x < K) reading->weights[threadIdx.x] = float(job.weights[t * K + threadIdx.x]);
    read_frame(job.drift + t * DRIFT, reading);
    make_priors(Alone(), maps, pyramid, job.held + i64(t) * K * maps.n_cells(), reading->weights);
    return {maps, pyramid, reading->weights, true};
}

// New deposits (T, K, cells of finest) from the labels that the maps so far give; each frame's weights too.
__device__ __forceinline__ void remap(const Labelling& job, const Team& team, const Maps& maps, const Maps& finest,
                                      u32* made) {
    Pyramid pyramid(maps, job.scratch);
    i64 size = i64(K) * finest.n_cells();
    for (int t = team.rank; t < job.n_frames; t += team.size) {
        u32* mine = made + t * size;
        for (i64 i = threadIdx.x; i < size; i += blockDim.x) mine[i] = 0;
        Weights weights = open_frame(job, maps, pyramid, t);
        const Densities& at = job.reading->at;
        sum_parts<float, K>(Alone(), job.m, job.parts, [&](i64 i, float (&count)[K]) {
            Word word = job.words[t * job.m + i];
            if (word == NO_SAMPLE) return;
            Sample sample = unpack(word);
            Read read = read_sample(sample, job.units, at, weights);
            deposit(finest, mine, finest.row_of(sample.y), finest.column_of(sample.x), read.resp);
#pragma unroll
            for (int k = 0; k < K; ++k) count[k] += read.resp[k];
        });
        __syncthreads();
        add_parts<K>(job.m, job.parts, job.reading->count);
        if (threadIdx.x == 0) frame_weights(job.reading->count, job.reading->common.alive, job.weights + t * K);
        __syncthreads();
    }
}

// labels (T, m): that of the likeliest component, label_of (K); posterior (T, m): of the foreground (K).
__device__ __forceinline__ void two_sided(const Labelling& job, const Team& team, const Maps& maps,
                                          const u8* foreground, const u8* label_of, u8* labels, float* posterior) {
    Pyramid pyramid(maps, job.scratch);
    for (int t = team.rank; t < job.n_frames; t += team.size) {
        Weights weights = open_frame(job, maps, pyramid, t);
        const Densities& at = job.reading->at;
        for (i64 i = threadIdx.x; i < job.m; i += blockDim.x) {
            i64 place = t * job.m + i;
            Word word = job.words[place];
            u8 label = NOT_VISITED;
            float probability = 0.0f;
            if (word != NO_SAMPLE) {
                Read read = read_sample(unpack(word), job.units, at, weights);
                int best = 0;
                float most = read.resp[0];
#pragma unroll
                for (int k = 1; k < K; ++k) {
                    if (read.resp[k] > most) best = k;
                    most = fmaxf(most, read.resp[k]);
                }
                label = label_of[best];
                probability = foreground_of(read.resp, foreground);
            }
            labels[place] = label;
            posterior[place] = probability;
        }
        __syncthreads();
    }
}

// words: (R, T, m). usable: (R), 0 where there are no parameters: NOT_VISITED and NaN then. units: (R, 2).
// common (R, N_COMMON), fitted_weights (R, T, K), drift (R, T, DRIFT), settled (R, T, K, cells of settle_levels): as
// movie_settle leaves them. foreground, label_of: (R, K). labels, posterior: (R, T, m).
// Scratch: weights (teams, T, K); made (teams, T, K, cells); held (teams, T, K, cells); scratch (blocks, 2 K cells);
// parts (blocks, n_parts(m), K); cells those of label_levels. board: 1 + 2 teams words, zero.
extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
    movie_label(const Word* __restrict__ words, int n_replicates, int n_frames, i64 m, int height, int width,
                int settle_levels, int label_levels, int n_remap, const u8* usable, const double* units,
                const double* common, const double* fitted_weights, const double* drift, const u32* settled,
                const u8* foreground, const u8* label_of, int team_size, u8* labels, float* posterior, double* weights,
                u32* made, float* held, float* scratch, double* parts, u32* board) {
    SHARED_MEMORY(memory);
    Carver carve(memory);
    Team team = make_team(board, team_size);
    Maps coarse = make_maps(height, width, settle_levels, float(PUREST));
    Maps finest = make_maps(height, width, label_levels, float(PUREST));
    i64 size = i64(K) * finest.n_cells();
    Labelling job;
    job.reading = carve.take<Reading>(1);
    job.m = m;
    job.n_frames = n_frames;
    job.weights = weights + i64(team.index) * n_frames * K;
    job.held = held + team.index * n_frames * size;
    job.scratch = scratch + blockIdx.x * 2 * size;
    job.parts = parts + blockIdx.x * n_parts(m) * K;
    made += team.index * n_frames * size;
    for (u32 r = next_replicate(team, board); r < u32(n_replicates); r = next_replicate(team, board)) {
        i64 first_frame = i64(r) * n_frames;
        job.words = words + first_frame * m;
        job.drift = drift + first_frame * DRIFT;
        u8* mine = labels + first_frame * m;
        float* probability = posterior + first_frame * m;
        if (!usable[r]) {
            for (i64 i = team.first(); i < n_frames * m; i += team.stride()) {
                mine[i] = NOT_VISITED;
                probability[i] = __int_as_float(0x7fc00000);
            }
            continue;
        }
        job.units = make_units(units[2 * r], units[2 * r + 1], height, width);
        read_common(common + i64(r) * N_COMMON, job.reading);
        for (i64 i = team.first(); i < n_frames * K; i += team.stride())
            job.weights[i] = fitted_weights[first_frame * K + i];
        for (int i = 0; i <= n_remap; ++i) {
            const Maps& maps = i ? finest : coarse;
            i64 cells = maps.n_cells();
            through_time(team, i ? made : settled + first_frame * K * cells, job.held, n_frames, K * cells);
            team.sync();
            if (i < n_remap)
                remap(job, team, maps, finest, made);
            else
                two_sided(job, team, maps, foreground + r * K, label_of + r * K, mine, probability);
            team.sync();
        }
    }
}
