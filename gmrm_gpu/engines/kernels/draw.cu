// Draws the pixels of every replicate and frame of a slab of the movie and fetches their values.
//
// Compile-time: SCHEME (places.cuh), VALUE (type of a pixel: u8, signed char, u16, short or float), HALF (1: VALUE is
// u16 and holds the bits of a float16), WIDE (samples.cuh).
#include "samples.cuh"
#include "places.cuh"

#define N_THREADS 256
#define ITEMS 4  // samples of a thread whose fetches are under way together

#if HALF
// Exact: a float16 is a float32.
__device__ __forceinline__ float real_value(u16 bits) {
    u32 sign = u32(bits & 0x8000) << 16, rest = bits & 0x7fff;
    if (rest < 0x400) {
        float tiny = float(rest) * (1.0f / 16777216.0f);
        return sign ? -tiny : tiny;
    }
    u32 bias = rest < 0x7c00 ? 112u << 23 : 224u << 23;  // of the exponent; infinity and NaN keep the largest
    return __uint_as_float(sign | ((rest << 13) + bias));
}
#else
__device__ __forceinline__ float real_value(VALUE value) { return float(value); }
#endif

__device__ __forceinline__ Word packed(VALUE value, Place place) {
#if WIDE
    return pack(real_value(value), place.x, place.y);
#else
    return u32(value) << 24 | u32(place.y) << 12 | u32(place.x);  // spares `pack` two conversions
#endif
}

// Block b has `length` places from (b % chunks) * length of replicate b / chunks % R in frame first + b / chunks / R:
// blocks that run at the same time read the same frame, which the caches then hold.
//
// plan: one. movie: (slab, H * W), frames first .. first + slab - 1. table, thresholds: see Places and n_at_most.
// replicates: (R,) and frames: (T,), their numbers. samples: (R, T, m). n_samples: (R, T), zero before the first slab.
extern "C" __global__ void __launch_bounds__(N_THREADS, 4)
    draw(const DrawPlan* __restrict__ plan, const VALUE* __restrict__ movie, const void* __restrict__ table,
         const u64* __restrict__ thresholds, const u32* __restrict__ replicates, const u32* __restrict__ frames,
         Word* __restrict__ samples, int* __restrict__ n_samples, int first, int length, int chunks) {
    SHARED_MEMORY(memory);
    Carver carve(memory);
    FrameKeys* keys = carve.take<FrameKeys>(1);
    DrawPlan own = *plan;
    int block = blockIdx.x / chunks, start = blockIdx.x % chunks * length;
    int in_slab = block / own.n_replicates, r = block % own.n_replicates, t = first + in_slab;
    make_keys(keys, own, thresholds, replicates[r], frames[t]);

    Places places(own, *keys, table);
    i64 fit = i64(r) * own.n_frames + t;
    const VALUE* frame = movie + i64(in_slab) * own.height * own.width;
    Word* out = samples + fit * own.m;
    int stop = min(start + length, own.m), found = 0;
    for (int base = start + threadIdx.x; base < stop; base += ITEMS * N_THREADS) {
        Place place[ITEMS];
        VALUE value[ITEMS];
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            int j = base + i * N_THREADS;
            place[i] = j < stop ? places.at(j) : Place{0, 0, false};
            value[i] = place[i].valid ? frame[i64(place[i].y) * own.width + place[i].x] : static_cast<VALUE>(0);
        }
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            int j = base + i * N_THREADS;
            if (j < stop) out[j] = place[i].valid ? packed(value[i], place[i]) : NO_SAMPLE;
            found += place[i].valid;
        }
    }
    found = warp_sum(found);
    if (lane_id() == 0) atomicAdd(n_samples + fit, found);
}
