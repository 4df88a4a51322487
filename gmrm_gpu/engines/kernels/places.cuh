// Which pixel sample j of a replicate and frame is: the positions and validity of gmrm_gpu/sampling.py, bit for bit.
#pragma once
#include "philox.cuh"

#define FULL 0
#define FIXED 1
#define BERNOULLI 2
#define STRATIFIED 3
#define LINES 4

// A draw as the host lays it out (fused/draw.py), in words of 32 bits.
struct DrawPlan {
    int height, width;
    int m;  // places a frame, `Sampler.capacity`
    int n_replicates, n_frames;
    int n;              // the permutation is of 0..n-1: allowed pixels, or segments of rows
    int bits;           // of its network
    int rows, columns;  // stratified: the grid of blocks; lines: columns segments a row, of `rows` places each
    int first_count, n_thresholds;  // bernoulli
    Seed seed;
};

// What all samples of one replicate and frame share.
struct FrameKeys {
    u32 keys[N_FEISTEL_ROUNDS];
    u32 layout[4];
    int count;  // bernoulli: how many places count
};

struct Place {
    int x, y;
    bool valid;
};

// Division of 32-bit numbers; the estimate is at most one too small.
struct Divisor {
    u32 by, inverse;
    __device__ __forceinline__ explicit Divisor(u32 by) : by(by), inverse(0xffffffffu / by) {}
    __device__ __forceinline__ u32 quotient(u32 value) const {
        u32 estimate = high_product(value, inverse);
        return estimate + (value - estimate * by >= by);
    }
};

__device__ __forceinline__ int scaled_word(u32 word, int size) { return int(high_product(word, u32(size))); }

// How many thresholds (n, ascending) are at most `word`.
__device__ __forceinline__ int n_at_most(const u64* thresholds, int n, u32 word) {
    int low = 0;
    while (n > 0) {
        int half = n / 2;
        bool below = thresholds[low + half] <= word;
        low = below ? low + half + 1 : low;
        n = below ? n - half - 1 : half;
    }
    return low;
}

// Fills `shared` with the keys of a replicate and frame (their numbers); the whole block, which has three threads or
// more.
__device__ __forceinline__ void make_keys(FrameKeys* shared, const DrawPlan& plan, const u64* thresholds, u32 replicate,
                                          u32 frame) {
    int part = threadIdx.x;
    if (part < 3) {
        u32 stream = part < 2 ? STREAM_SAMPLE : STREAM_LAYOUT;
        Words4 words = stream_words(plan.seed, replicate, frame, stream, part < 2 ? part : 0);
        u32* out = part < 2 ? shared->keys + 4 * part : shared->layout;
        for (int i = 0; i < 4; ++i) out[i] = words.word[i];
        if (part == 2 && SCHEME == BERNOULLI) {
            shared->count = plan.first_count + n_at_most(thresholds, plan.n_thresholds, words.word[0]);
        }
    }
    __syncthreads();
}

// Where `word` falls in block number `block` of `blocks` along a side of `size` pixels shifted by `offset`: block j
// reaches from floor((j size + offset) / blocks) to the next, modulo `size`. Sides below 2^16 keep it in 32 bits.
__device__ __forceinline__ int place_in_block(u32 block, Divisor blocks, u32 size, u32 offset, u32 word) {
    u32 start = blocks.quotient(block * size + offset);
    u32 length = blocks.quotient((block + 1) * size + offset) - start;
    u32 place = start + high_product(word, length);
    return int(place >= size ? place - size : place);
}

// Computes places; made once a thread. table: excluded pixels: int32 (n,) positions of the allowed pixels, or for
// stratified and lines u8 (height * width,) whether a pixel is allowed. Null: every pixel is.
struct Places {
    const DrawPlan& plan;
    const FrameKeys& keys;
    const void* table;
    Divisor width, columns, rows;

    __device__ __forceinline__ Places(const DrawPlan& plan, const FrameKeys& keys, const void* table)
        : plan(plan), keys(keys), table(table), width(plan.width), columns(plan.columns), rows(plan.rows) {}

    __device__ __forceinline__ Place at(int j) const {
#if SCHEME == STRATIFIED
        return allowed(in_grid(j));
#elif SCHEME == LINES
        return allowed(in_line(j));
#else
        u32 position = SCHEME == FULL ? u32(j) : permuted(j, plan.n, plan.bits, keys.keys);
        if (table) position = reinterpret_cast<const int*>(table)[position];
        u32 y = width.quotient(position);
        return {int(position - y * width.by), int(y), SCHEME != BERNOULLI || j < keys.count};
#endif
    }

    // One pixel at random a block of a grid that is shifted, cyclically, at random.
    __device__ __forceinline__ Place in_grid(int j) const {
        Words4 words = philox4x32(j, 0, 0, STREAM_SAMPLE, keys.layout[2], keys.layout[3]);
        u32 row = columns.quotient(j), column = j - row * columns.by;
        int shift_y = scaled_word(keys.layout[0], plan.height), shift_x = scaled_word(keys.layout[1], plan.width);
        return {place_in_block(column, columns, plan.width, shift_x, words.word[1]),
                place_in_block(row, rows, plan.height, shift_y, words.word[0]), true};
    }

    // Step j % rows of the row segment that stands at j / rows of a permutation of all segments.
    __device__ __forceinline__ Place in_line(int j) const {
        u32 number = rows.quotient(j), step = j - number * rows.by;
        u32 chosen = permuted(number, plan.n, plan.bits, keys.keys);
        u32 row = columns.quotient(chosen), segment = chosen - row * columns.by;
        u32 shift = scaled_word(keys.layout[0], plan.width);
        u32 start = columns.quotient(segment * width.by + shift);
        u32 length = columns.quotient((segment + 1) * width.by + shift) - start;
        u32 x = start + (step < length ? step : 0);
        return {int(x >= width.by ? x - width.by : x), int(row), step < length};
    }

    __device__ __forceinline__ Place allowed(Place place) const {
        if (table && place.valid) {
            place.valid = reinterpret_cast<const u8*>(table)[i64(place.y) * plan.width + place.x];
        }
        return place;
    }
};
