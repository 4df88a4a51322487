// The spatio-temporal vote of METHOD.md 7, as gmrm_gpu/correct.py decides it.
//
// Compile-time: N_PHASES, WIDE.
#include "samples.cuh"
#include "maps.cuh"

#define N_THREADS 256

// One row of the neighbourhood: pixels x - half .. x + half of row y + dy of frame t + dt.
struct BallRow {
    int dt;
    short dy, half;
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
};

// Adds to `counts` how many pixels of each phase a row has beside pixel (x, y) of frame `t`, which is number `fit`.
__device__ __forceinline__ void count_row(const Volume& volume, BallRow row, i64 fit, int t, int x, int y,
                                          int (&counts)[N_PHASES]) {
    int frame = t + row.dt, line = y + row.dy;
    if (frame < 0 || frame >= volume.n_frames || line < 0 || line >= volume.height) return;
    int low = max(x - row.half, 0), high = min(x + row.half, volume.width - 1);
    const u32* words = volume.maps + map_place(fit + row.dt, N_PHASES, 0, volume.words, volume.height, low, line);
    i64 phase = i64(volume.words) * volume.height;
    for (int word = low / 32; word <= high / 32; ++word, words += volume.height) {
        u32 mask = FULL_MASK << (word == low / 32 ? low % 32 : 0);
        mask &= FULL_MASK >> (word == high / 32 ? 31 - high % 32 : 0);
#pragma unroll
        for (int p = 0; p < N_PHASES; ++p) counts[p] += __popc(words[p * phase] & mask);
    }
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
// rows: (n_rows,). without: (F,) zero before; visited samples that have no neighbours.
extern "C" __global__ void __launch_bounds__(N_THREADS, 4)
correct(const Word* __restrict__ samples, u8* __restrict__ labels, const u32* __restrict__ maps,
        const BallRow* __restrict__ rows, int* __restrict__ without, int n_rows, int n_frames, int m, int length,
        int chunks, int height, int width, int foreground, int both, int own, double gamma) {
    i64 fit = blockIdx.x / chunks;
    int t = int(fit % n_frames), lane = lane_id(), alone = 0;
    int start = blockIdx.x % chunks * length, stop = min(start + length, m);
    const Volume volume{maps, n_frames, height, width, (width + 31) / 32};
    const Vote vote{gamma, foreground, bool(both), bool(own)};

    for (int base = start + warp_id() * WARP; base < stop; base += N_THREADS) {
        int j = base + lane;
        int label = j < stop ? labels[fit * m + j] : NOT_VISITED;
        bool asked = vote.both ? label != NOT_VISITED : label == foreground;
        int place = 0, counts[N_PHASES] = {};
        if (asked) {
            Sample sample = unpack(samples[fit * m + j]);
            place = sample.y << 16 | sample.x;
        }
        // The lanes share the rows of one sample after the other; each keeps the counts of its own.
        for (u32 waiting = __ballot_sync(FULL_MASK, asked); waiting; waiting &= waiting - 1) {
            int next = __ffs(waiting) - 1, found[N_PHASES] = {};
            u32 here = __shfl_sync(FULL_MASK, place, next);
            for (int row = lane; row < n_rows; row += WARP) {
                count_row(volume, rows[row], fit, t, here & 0xffff, here >> 16, found);
            }
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
