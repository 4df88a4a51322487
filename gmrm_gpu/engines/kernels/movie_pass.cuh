// One pass over the samples of a frame, whose weights come from the maps: sums for the M-steps, new deposits.
#pragma once
#include "movie_maps.cuh"

// Samples are handled 32 at a time: one lane makes the responsibilities of one sample and leaves them, and the
// monomials, in shared memory; then the warp multiplies the two tables. Each lane owns tiles of 2 x 2 sums, which it
// carries in float64. So few samples a frame would not pay for folding as many accumulators over the lanes.
constexpr int W_PAIRS = (K + 1) / 2, F_PAIRS = (P + 1) / 2, D_PAIRS = (Q + 2) / 2;  // rows of the tables, in pairs
constexpr int RESP_TILES = W_PAIRS * F_PAIRS, N_TILES = RESP_TILES + W_PAIRS * D_PAIRS;
constexpr int TILES_A_LANE = (N_TILES + WARP - 1) / WARP;
constexpr int DEV_ROWS = 2 * W_PAIRS, BASIS_ROWS = 4 * W_PAIRS, N_ROWS = BASIS_ROWS + 2 * F_PAIRS;
constexpr int ROW = WARP + 4;  // numbers from row to row: pairs of rows then differ in their banks, by fours
constexpr int TABLE = N_ROWS * ROW;
static_assert(N_SUMS * sizeof(double) <= TABLE * sizeof(float), "a warp's sums take the place of its table");

// As `e_step`, with the sample's own weights.
__device__ __forceinline__ float e_step_weighted(float residual, const Densities& at, const float (&weight)[K],
                                                 float (&resp)[K], float (&dev)[K]) {
    float top = float(NO_COMPONENT);
#pragma unroll
    for (int k = 0; k < K; ++k) {
        dev[k] = residual - at.mean[k];
        float prior = weight[k] > 0.0f ? log2f(fmaxf(weight[k], 1e-30f)) : float(NO_COMPONENT);
        resp[k] = at.level[k] + prior - at.sharpness[k] * (dev[k] * dev[k]);
        top = fmaxf(top, resp[k]);
    }
    return normalise(resp, top);
}

__device__ __forceinline__ float trend_at(float x, float y, const Densities& at) {
    float basis[P], trend = 0.0f;
    monomials(x, y, basis);
#pragma unroll
    for (int j = 0; j < Q; ++j) trend += at.coef[j] * basis[1 + j];
    return trend;
}

// A lane's column of the tables, zero where it has no sample.
__device__ __forceinline__ void fill_column(float* table, const float (&basis)[P], const float (&resp)[K],
                                            const float (&dev)[K]) {
    float* column = table + lane_id();
#pragma unroll
    for (int k = 0; k < 2 * W_PAIRS; ++k) {
        column[k * ROW] = k < K ? resp[k] : 0.0f;
        column[(DEV_ROWS + k) * ROW] = k < K ? resp[k] * dev[k] : 0.0f;
    }
#pragma unroll
    for (int p = 0; p < 2 * F_PAIRS; ++p) column[(BASIS_ROWS + p) * ROW] = p < P ? basis[p] : 0.0f;
}

// First rows of tile i: of responsibilities (times deviations, after RESP_TILES) and of monomials.
__device__ __forceinline__ int weight_row(int i) {
    return i < RESP_TILES ? i / F_PAIRS * 2 : DEV_ROWS + (i - RESP_TILES) / D_PAIRS * 2;
}
__device__ __forceinline__ int basis_row(int i) {
    return 2 * (i < RESP_TILES ? i % F_PAIRS : (i - RESP_TILES) % D_PAIRS);
}

// sums += the products of the tables that this lane owns.
__device__ __forceinline__ void multiply(const float* table, double (&sums)[TILES_A_LANE][4]) {
#pragma unroll
    for (int s = 0; s < TILES_A_LANE; ++s) {
        int tile = s * WARP + lane_id();
        if (tile >= N_TILES) continue;
        const float4* w = reinterpret_cast<const float4*>(table + weight_row(tile) * ROW);
        const float4* f = reinterpret_cast<const float4*>(table + (BASIS_ROWS + basis_row(tile)) * ROW);
        float total[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int i = 0; i < WARP / 4; ++i) {
            float4 a = w[i], b = w[ROW / 4 + i], c = f[i], d = f[ROW / 4 + i];
            total[0] += a.x * c.x + a.y * c.y + a.z * c.z + a.w * c.w;
            total[1] += a.x * d.x + a.y * d.y + a.z * d.z + a.w * d.w;
            total[2] += b.x * c.x + b.y * c.y + b.z * c.z + b.w * c.w;
            total[3] += b.x * d.x + b.y * d.y + b.z * d.z + b.w * d.w;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[s][i] += total[i];
    }
}

// What a lane's samples add up to.
struct LaneSums {
    double tiles[TILES_A_LANE][4];
    float square[K];
    Compensated log_density;
    __device__ __forceinline__ LaneSums() {
#pragma unroll
        for (int i = 0; i < 4 * TILES_A_LANE; ++i) tiles[i / 4][i % 4] = 0.0;
#pragma unroll
        for (int k = 0; k < K; ++k) square[k] = 0.0f;
    }
};

// The sums of all warps, in their order, to sums (N_SUMS) in global memory. table: this warp's; the next one's follows.
__device__ __forceinline__ void add_lanes(const LaneSums& mine, float* table, float* tables, double* sums) {
    double* of_warp = reinterpret_cast<double*>(table);
    __syncwarp();
#pragma unroll
    for (int s = 0; s < TILES_A_LANE; ++s) {
        int tile = s * WARP + lane_id();
        bool is_dev = tile >= RESP_TILES;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int k = weight_row(tile) - (is_dev ? DEV_ROWS : 0) + i / 2, p = basis_row(tile) + i % 2;
            if (tile < N_TILES && k < K && p < (is_dev ? 1 + Q : P))
                of_warp[k * SUMS_A_COMPONENT + (is_dev ? P : 0) + p] = mine.tiles[s][i];
        }
    }
#pragma unroll
    for (int k = 0; k < K; ++k) {
        double square = warp_sum(double(mine.square[k]));
        if (lane_id() == 0) of_warp[k * SUMS_A_COMPONENT + P + 1 + Q] = square;
    }
    double log_density = warp_sum(mine.log_density.value());
    if (lane_id() == 0) of_warp[LOG_LIKELIHOOD] = LN_2 * log_density;
    __syncthreads();
    for (int i = threadIdx.x; i < N_SUMS; i += blockDim.x) {
        double total = 0.0;
        for (int w = 0; w < n_warps(); ++w) total += reinterpret_cast<const double*>(tables + w * TABLE)[i];
        sums[i] = total;
    }
    __syncthreads();
}

// Where the weights of a frame's samples come from: the maps, or, without a pyramid, the frame.
struct Weights {
    Maps maps;
    Pyramid pyramid;
    const float* frame;  // (K)
    bool mapped;
    __device__ __forceinline__ void at(int y, int x, float (&weight)[K]) const {
        if (mapped) return prior_at(maps, pyramid, frame, y, x, weight);
#pragma unroll
        for (int k = 0; k < K; ++k) weight[k] = frame[k];
    }
};

// words: (n) samples of the frame. made: (K, rows, columns), zero, receives the deposits. sums: (N_SUMS). tables:
// (n_warps, TABLE), shared. The whole block.
__device__ __noinline__ void frame_pass(const Word* words, i64 n, const Units& units, const Densities& at,
                                        const Weights& weights, u32* made, double* sums, float* tables) {
    float* table = tables + warp_id() * TABLE;
    LaneSums mine;
    for (i64 first = warp_id() * WARP; first < n; first += blockDim.x) {
        i64 i = first + lane_id();
        Word word = i < n ? words[i] : NO_SAMPLE;
        float basis[P] = {}, resp[K] = {}, dev[K] = {};
        if (word != NO_SAMPLE) {
            Sample sample = unpack(word);
            float weight[K];
            int y = weights.maps.row_of(sample.y), x = weights.maps.column_of(sample.x);
            monomials(float(sample.x) * units.step_x + units.first_x, float(sample.y) * units.step_y + units.first_y,
                      basis);
            weights.at(y, x, weight);
            float residual = residual_of(standardised(sample.value, units), basis, at);
            mine.log_density.add(e_step_weighted(residual, at, weight, resp, dev));
#pragma unroll
            for (int k = 0; k < K; ++k) mine.square[k] += resp[k] * dev[k] * dev[k];
            deposit(weights.maps, made, y, x, resp);
        }
        fill_column(table, basis, resp, dev);
        __syncwarp();
        multiply(table, mine.tiles);
        __syncwarp();
    }
    add_lanes(mine, table, tables, sums);
}
