// The spatio-temporal vote of METHOD.md 7, as gmrm_gpu/correct.py decides it.
//
// Compile-time: N_PHASES, WIDE, and WINDOW: how many words of 32 pixels hold every row of the neighbourhood, 1 or 2; 0:
// rows are longer, or the words of the maps of all frames within reach are more than 31 bits count.
#include "samples.cuh"
#include "maps.cuh"

#define N_THREADS 256

#if WINDOW == 2
typedef uint4 RowWords;
#else
typedef uint2 RowWords;
#endif

// One row of the neighbourhood: pixels x - half .. x + half of row y + dy of frame t + dt. Words: dt and dy, 16 bits
// each from the low end; then half, or with a WINDOW which of the pixels from x - reach on are within.
struct BallRow {
    int dt, dy;
    u32 span[WINDOW == 2 ? 2 : 1];
    __device__ __forceinline__ explicit BallRow(RowWords row) : dt(short(row.x)), dy(short(row.x >> 16)) {
        span[0] = row.y;
#if WINDOW == 2
        span[1] = row.z;
#endif
    }
};

struct Vote {
    double gamma;
    int foreground;
    bool both;  // background samples are visited too
    bool own;   // the pixel itself is within the neighbourhood, and no neighbour of its own
};

struct Volume {
    const u32* maps;  // see maps.cuh
    int n_frames, height, width, words;
    __device__ __forceinline__ int column() const { return height * N_PHASES; }
    __device__ __forceinline__ int frame() const { return words * column(); }
};

// A pixel (x, y) of frame t, which is number `fit`.
struct Pixel {
    int t, x, y;
    int first, shift;  // x - reach is bit `shift` of word `first`
    const u32* place;  // the words of the phases in its row; with a WINDOW of word `first`, else of word 0
    __device__ __forceinline__ Pixel(const Volume& volume, i64 fit, int t, int x, int y, int reach)
        : t(t), x(x), y(y), first((x - reach) >> 5), shift((x - reach) & 31) {
        place = volume.maps + map_place(fit, N_PHASES, 0, volume.words, volume.height, WINDOW ? first : 0, y);
    }
};

__device__ __forceinline__ void load_words(const u32* from, bool exists, u32 (&out)[N_PHASES]) {
#if N_PHASES == 2
    u64 both = exists ? *reinterpret_cast<const u64*>(from) : 0;
    out[0] = u32(both);
    out[1] = u32(both >> 32);
#else
#pragma unroll
    for (int p = 0; p < N_PHASES; ++p) out[p] = exists ? from[p] : 0;
#endif
}

// Adds to `counts` how many pixels of each phase a row has beside a pixel. With a WINDOW it is cut out of the words of
// the map, the same for all rows of a pixel, under masks made beforehand; else word by word.
__device__ __forceinline__ void count_row(const Volume& volume, BallRow row, const Pixel& pixel,
                                          int (&counts)[N_PHASES]) {
    int frame = pixel.t + row.dt, line = pixel.y + row.dy;
    if (u32(frame) >= u32(volume.n_frames) || u32(line) >= u32(volume.height)) return;
#if WINDOW
    const u32* words = pixel.place + (row.dt * volume.frame() + row.dy * N_PHASES);
    u32 found[WINDOW + 1][N_PHASES];
#pragma unroll
    for (int i = 0; i <= WINDOW; ++i) {
        load_words(words + i * volume.column(), u32(pixel.first + i) < u32(volume.words), found[i]);
    }
#pragma unroll
    for (int i = 0; i < WINDOW; ++i) {
#pragma unroll
        for (int p = 0; p < N_PHASES; ++p) {
            counts[p] += __popc(__funnelshift_r(found[i][p], found[i + 1][p], pixel.shift) & row.span[i]);
        }
    }
#else
    int half = int(row.span[0]), low = max(pixel.x - half, 0), high = min(pixel.x + half, volume.width - 1);
    const u32* words = pixel.place + (i64(row.dt) * volume.frame() + row.dy * N_PHASES);
    words += low / 32 * i64(volume.column());
    for (int word = low / 32; word <= high / 32; ++word, words += volume.column()) {
        u32 mask = FULL_MASK << (word == low / 32 ? low % 32 : 0), found[N_PHASES];
        mask &= FULL_MASK >> (word == high / 32 ? 31 - high % 32 : 0);
        load_words(words, true, found);
#pragma unroll
        for (int p = 0; p < N_PHASES; ++p) counts[p] += __popc(found[p] & mask);
    }
#endif
}

// The new label; `lonely`: no neighbours. Shares are compared as quotients, which are exact at ties.
__device__ __forceinline__ int voted(const Vote& vote, int label, int (&counts)[N_PHASES], bool* lonely) {
    int total = 0, with = 0, commonest = 0, most = -1;
#pragma unroll
    for (int p = 0; p < N_PHASES; ++p) {
        counts[p] -= vote.own && p == label;
        total += counts[p];
        with = p == vote.foreground ? counts[p] : with;
        commonest = counts[p] > most ? p : commonest;
        most = max(most, counts[p]);
    }
    *lonely = total == 0;
    if (total == 0) return label;
    if (label == vote.foreground) return double(with) / double(total) < vote.gamma ? commonest : label;
    return double(total - with) / double(total) < vote.gamma ? vote.foreground : label;
}

// Block b has `length` samples (whole warps) from (b % chunks) * length of fit b / chunks; fit = replicate * T + frame.
//
// samples: (F, m). labels: (F, m), replaced in place; neighbours are read from the maps, which keep the raw labels.
// rows: (n_rows,), see BallRow, none wider than 2 reach + 1 pixels. without: (F,) zero before; visited samples
// that have no neighbours.
extern "C" __global__ void __launch_bounds__(N_THREADS, 4)
    correct(const Word* __restrict__ samples, u8* __restrict__ labels, const u32* __restrict__ maps,
            const RowWords* __restrict__ rows, int* __restrict__ without, int n_rows, int reach, int n_frames, int m,
            int length, int chunks, int height, int width, int foreground, int both, int own, double gamma) {
    i64 fit = blockIdx.x / chunks;
    int t = int(fit % n_frames), lane = lane_id(), alone = 0;
    int start = blockIdx.x % chunks * length, stop = min(start + length, m);
    const Volume volume{maps, n_frames, height, width, (width + 31) / 32};
    const Vote vote{gamma, foreground, bool(both), bool(own)};

    for (int base = start + warp_id() * WARP; base < stop; base += N_THREADS) {
        int j = base + lane;
        int label = j < stop ? labels[fit * m + j] : NOT_VISITED;
        bool asked = vote.both ? label != NOT_VISITED : label == foreground;
        u32 place = 0;
        int counts[N_PHASES] = {};
        if (asked) {
            Sample sample = unpack(samples[fit * m + j]);
            place = u32(sample.y) << 16 | u32(sample.x);
        }
        // The lanes share the rows of one sample after the other; each keeps the counts of its own.
        for (u32 waiting = __ballot_sync(FULL_MASK, asked); waiting; waiting &= waiting - 1) {
            int next = __ffs(waiting) - 1, found[N_PHASES] = {};
            u32 here = __shfl_sync(FULL_MASK, place, next);
            const Pixel pixel(volume, fit, t, here & 0xffff, here >> 16, reach);
            for (int row = lane; row < n_rows; row += WARP) count_row(volume, BallRow(rows[row]), pixel, found);
#pragma unroll
            for (int p = 0; p < N_PHASES; ++p) {
                int total = warp_sum(found[p]);
                counts[p] = lane == next ? total : counts[p];
            }
        }
        bool lonely = false;
        if (asked) labels[fit * m + j] = u8(voted(vote, label, counts, &lonely));
        alone += lonely;
    }
    alone = warp_sum(alone);
    if (lane == 0 && alone) atomicAdd(without + fit, alone);
}
