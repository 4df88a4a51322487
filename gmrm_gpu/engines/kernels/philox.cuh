// Counter-based random numbers and the keyed permutation, the same bits as gmrm_gpu/philox.py.
// Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
#pragma once
#include "common.cuh"

// The fourth counter word tells apart what a number is used for.
#define STREAM_SAMPLE 0x5A000000u
#define STREAM_LAYOUT 0x5B000000u
#define STREAM_START 0x5C000000u
#define N_FEISTEL_ROUNDS 8
#define PHILOX_M0 0xD2511F53u
#define PHILOX_M1 0xCD9E8D57u

struct Words4 {
    u32 word[4];
};

__device__ __forceinline__ u32 high_product(u32 a, u32 b) { return u32(u64(a) * b >> 32); }

__device__ __forceinline__ Words4 philox4x32(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        u32 high0 = high_product(c0, PHILOX_M0), high1 = high_product(c2, PHILOX_M1);
        u32 low0 = c0 * PHILOX_M0, low1 = c2 * PHILOX_M1;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// What a study's random numbers are keyed with: the two halves of the seed, and the rate in 2^-32.
struct Seed {
    u32 low, high, rate;
};

// Words 4 * block .. 4 * block + 3 of `philox.stream_words`.
__device__ __forceinline__ Words4 stream_words(Seed seed, u32 replicate, u32 frame, u32 stream, u32 block) {
    return philox4x32(frame, replicate, seed.rate, stream + block, seed.low, seed.high);
}

// The top `bits` of a keyed 32-bit hash.
__device__ __forceinline__ u32 feistel_mix(u32 value, u32 key, int bits) {
    u32 mixed = (value ^ key) * PHILOX_M0;
    mixed ^= mixed >> 15;
    mixed *= PHILOX_M1;
    return mixed >> (32 - bits);
}

// keys: (N_FEISTEL_ROUNDS,).
__device__ __forceinline__ u32 feistel(u32 value, int bits, const u32* keys) {
    int low_bits = bits / 2, high_bits = bits - low_bits;
    u32 high = value >> low_bits, low = value & ((1u << low_bits) - 1);
#pragma unroll
    for (int i = 0; i < N_FEISTEL_ROUNDS; i += 2) {
        high ^= feistel_mix(low, keys[i], high_bits);
        low ^= feistel_mix(high, keys[i + 1], low_bits);
    }
    return high << low_bits | low;
}

// Place of `index` under a keyed permutation of 0..n-1: an alternating Feistel network on `bits` bits (at least six,
// 2^bits >= n), walked along its cycle until the value falls below n (Black & Rogaway 2002).
__device__ __forceinline__ u32 permuted(u32 index, u32 n, int bits, const u32* keys) {
    u32 value = feistel(index, bits, keys);
    while (value >= n) value = feistel(value, bits, keys);
    return value;
}
