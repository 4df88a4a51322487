// Weights that vary over the frame, from what the other frames' samples left in cells (METHOD.md 6, `mixture.maps`).
#pragma once
#include "movie.cuh"

// The widest Gaussian has a standard deviation of 24 pixels and 1.5 cells; each next level is half as wide.
constexpr int COARSEST_SHIFT = 4;  // cells of the widest level are 16 pixels wide
constexpr int REACH = 6;           // cells to either side that a Gaussian is not cut off at
constexpr int STRIP = 8;           // rows that a thread smooths at a time
constexpr float DEPOSIT_STEPS = 65536.0f;
constexpr int SEGMENT = 16;  // frames whose deposits a thread holds while it goes through time

// GAUSSIAN: its values 0..6 cells away, 1 in the middle.
__device__ __forceinline__ float gaussian(int step) {
    const float values[REACH + 1] = {GAUSSIAN};
    return values[step < 0 ? -step : step];
}

// Nested grids of cells over a frame. Of level l, 0 the widest, the maps are (K, rows, columns) of its own grid.
struct Maps {
    int n_levels, rows, columns;  // of the finest grid
    float purest;
    __device__ __forceinline__ int halvings(int level) const { return n_levels - 1 - level; }
    __device__ __forceinline__ int rows_of(int level) const { return rows >> halvings(level); }
    __device__ __forceinline__ int columns_of(int level) const { return columns >> halvings(level); }
    __device__ __forceinline__ int n_cells() const { return rows * columns; }
    __device__ __forceinline__ int row_of(int y) const { return y >> (COARSEST_SHIFT + 1 - n_levels); }
    __device__ __forceinline__ int column_of(int x) const { return x >> (COARSEST_SHIFT + 1 - n_levels); }
    // Numbers in the maps of all levels before `level`.
    __device__ __forceinline__ int before(int level) const {
        return K * (rows_of(0) * columns_of(0)) * (((1 << (2 * level)) - 1) / 3);
    }
};

__device__ __forceinline__ Maps make_maps(int height, int width, int n_levels, float purest) {
    constexpr int COARSE = 1 << COARSEST_SHIFT;
    int each = 1 << (n_levels - 1);
    return {n_levels, (height + COARSE - 1) / COARSE * each, (width + COARSE - 1) / COARSE * each, purest};
}

// A block's scratch in global memory, at most 2 K cells floats: `before(n_levels - 1)` sums and as many priors, the
// finest level left out, and `before(n_levels)` smoothed.
struct Pyramid {
    float *sums, *prior, *smooth;
    __device__ __forceinline__ Pyramid(const Maps& maps, float* scratch)
        : sums(scratch),
          prior(scratch + maps.before(maps.n_levels - 1)),
          smooth(scratch + 2 * maps.before(maps.n_levels - 1)) {}
};

// Sums over two by two cells of the next finer level. fine: (K, 2 rows, 2 columns).
template <class Group>
__device__ __forceinline__ void halve(const Group& group, const float* fine, float* out, int rows, int columns) {
    for (int i = group.first(); i < K * rows * columns; i += group.stride()) {
        int x = i % columns, y = i / columns;  // y counts the rows of all components
        const float* corner = fine + 4 * y * columns + 2 * x;
        out[i] = ((corner[0] + corner[1]) + corner[2 * columns]) + corner[2 * columns + 1];
    }
}

// Gaussian along the columns of (K, rows, columns), peak 1. Each thread slides down a strip of one column.
template <class Group>
__device__ __forceinline__ void smooth_down(const Group& group, const float* maps, float* out, int rows, int columns) {
    int strips = (rows + STRIP - 1) / STRIP;
    for (int i = group.first(); i < K * strips * columns; i += group.stride()) {
        int x = i % columns, first = i / columns % strips * STRIP;
        i64 corner = i64(i / columns / strips) * rows * columns + x;
        float in[STRIP + 2 * REACH];
#pragma unroll
        for (int j = 0; j < STRIP + 2 * REACH; ++j) {
            int y = first + j - REACH;
            in[j] = y >= 0 && y < rows ? maps[corner + i64(y) * columns] : 0.0f;
        }
#pragma unroll
        for (int s = 0; s < STRIP; ++s) {
            float total = 0.0f;
#pragma unroll
            for (int d = -REACH; d <= REACH; ++d) total += gaussian(d) * in[s + d + REACH];
            if (first + s < rows) out[corner + i64(first + s) * columns] = total;
        }
    }
}

// The prior in one cell: the coarser map corrected by what this level's Gaussian holds there.
//     (level + w parent) / (sum of level + w),  w = SHRINKAGE / clip(1 - |parent|^2, purest, 1)
// smooth: (K, rows, columns) smoothed along columns.
__device__ __forceinline__ void corrected(const float* smooth, int rows, int columns, int y, int x, float purest,
                                          const float (&parent)[K], float (&prior)[K]) {
    float total = 0.0f, square = 0.0f;
#pragma unroll
    for (int k = 0; k < K; ++k) {
        const float* row = smooth + (i64(k) * rows + y) * columns;
        float held = 0.0f;
#pragma unroll
        for (int d = -REACH; d <= REACH; ++d)
            if (x + d >= 0 && x + d < columns) held += gaussian(d) * row[x + d];
        prior[k] = held;
        total += held;
        square += parent[k] * parent[k];
    }
    float impurity = 1.0f - square;
    impurity = impurity < purest ? purest : impurity > 1.0f ? 1.0f : impurity;
    float worth = float(SHRINKAGE) / impurity, inverse = 1.0f / (total + worth);
#pragma unroll
    for (int k = 0; k < K; ++k) prior[k] = (prior[k] + worth * parent[k]) * inverse;
}

// The prior of the level before in cell (y, x) of `level`: that of the whole frame, (K), before the widest.
__device__ __forceinline__ void parent_of(const Maps& maps, const Pyramid& at, int level, int y, int x,
                                          const float* weights, float (&parent)[K]) {
    int rows = maps.rows_of(level) / 2, columns = maps.columns_of(level) / 2;
#pragma unroll
    for (int k = 0; k < K; ++k)
        parent[k] = level ? at.prior[maps.before(level - 1) + (k * rows + y / 2) * columns + x / 2] : weights[k];
}

// Makes the scratch that `prior_at` reads, with all threads of the group. held: (K, rows, columns) of the finest grid,
// what other frames left. weights: (K) of the whole frame, 0 for a dropped component.
template <class Group>
__device__ __noinline__ void make_priors(const Group& group, const Maps& maps, const Pyramid& at, const float* held,
                                         const float* weights) {
    int finest = maps.n_levels - 1;
    for (int l = finest - 1; l >= 0; --l) {
        const float* fine = l + 1 == finest ? held : at.sums + maps.before(l + 1);
        halve(group, fine, at.sums + maps.before(l), maps.rows_of(l), maps.columns_of(l));
        group.sync();
    }
    for (int l = finest; l >= 0; --l)
        smooth_down(group, l == finest ? held : at.sums + maps.before(l), at.smooth + maps.before(l), maps.rows_of(l),
                    maps.columns_of(l));
    group.sync();
    for (int l = 0; l < finest; ++l) {
        int rows = maps.rows_of(l), columns = maps.columns_of(l);
        for (int cell = group.first(); cell < rows * columns; cell += group.stride()) {
            float parent[K], prior[K];
            int y = cell / columns, x = cell % columns;
            parent_of(maps, at, l, y, x, weights, parent);
            corrected(at.smooth + maps.before(l), rows, columns, y, x, maps.purest, parent, prior);
#pragma unroll
            for (int k = 0; k < K; ++k) at.prior[maps.before(l) + k * rows * columns + cell] = prior[k];
        }
        group.sync();
    }
}

// Weights of the components in cell (y, x) of the finest grid, after `make_priors`.
__device__ __forceinline__ void prior_at(const Maps& maps, const Pyramid& at, const float* weights, int y, int x,
                                         float (&prior)[K]) {
    constexpr float FLOOR = float(PRIOR_FLOOR);
    int finest = maps.n_levels - 1;
    float parent[K];
    parent_of(maps, at, finest, y, x, weights, parent);
    corrected(at.smooth + maps.before(finest), maps.rows, maps.columns, y, x, maps.purest, parent, prior);
    int cell = (y >> finest) * maps.columns_of(0) + (x >> finest);
    int coarse = maps.rows_of(0) * maps.columns_of(0);
#pragma unroll
    for (int k = 0; k < K; ++k) {
        float widest = finest ? at.prior[k * coarse + cell] : prior[k];
        prior[k] = (1.0f - FLOOR) * prior[k] + FLOOR * widest;
    }
}

// deposits of SEGMENT frames from `first`, 0 after the last.
__device__ __forceinline__ void load_segment(const u32* made, int first, int n_frames, i64 size, float (&in)[SEGMENT]) {
#pragma unroll
    for (int j = 0; j < SEGMENT; ++j)
        in[j] = first + j < n_frames ? float(made[(first + j) * size]) * (1.0f / DEPOSIT_STEPS) : 0.0f;
}

// What comes from the later frames of a segment, before each of them and, returned, before the first.
__device__ __forceinline__ float go_back(float later, int n, const float (&in)[SEGMENT], float (&after)[SEGMENT]) {
#pragma unroll
    for (int j = SEGMENT - 1; j >= 0; --j) {
        after[j] = later;
        if (j < n) later = float(DECAY) * (later + in[j]);
    }
    return later;
}

// What the other frames leave to each, fading with their distance in time. made: (T, size) deposits in whole steps,
// held: (T, size). Threads share the places, so each goes through time by itself: back, keeping only what enters each
// segment of frames from the future, and forward, segment by segment. Deposits are read twice, held is written once.
template <class Group>
__device__ __forceinline__ void through_time(const Group& group, const u32* made, float* held, int n_frames, i64 size) {
    for (i64 i = group.first(); i < size; i += group.stride()) {
        float past = 0.0f, future = 0.0f, in[SEGMENT], after[SEGMENT];
        for (int first = (n_frames - 1) / SEGMENT * SEGMENT; first >= 0; first -= SEGMENT) {
            load_segment(made + i, first, n_frames, size, in);
            held[first * size + i] = future;
            future = go_back(future, n_frames - first, in, after);
        }
        for (int first = 0; first < n_frames; first += SEGMENT) {
            load_segment(made + i, first, n_frames, size, in);
            go_back(held[first * size + i], n_frames - first, in, after);
#pragma unroll
            for (int j = 0; j < SEGMENT; ++j) {
                if (first + j < n_frames) held[(first + j) * size + i] = past + after[j];
                past = float(DECAY) * (past + in[j]);
            }
        }
    }
}

// Responsibilities of a sample there, added to the cell (y, x) of made (K, rows, columns).
__device__ __forceinline__ void deposit(const Maps& maps, u32* made, int y, int x, const float (&resp)[K]) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
        u32 steps = u32(rintf(resp[k] * DEPOSIT_STEPS));
        if (steps) atomicAdd(made + i64(k) * maps.n_cells() + y * maps.columns + x, steps);
    }
}
