// How a visited pixel is stored between kernels: position and value in one word.
#pragma once
#include "common.cuh"

// WIDE 0: value << 24 | y << 12 | x, for 8-bit values and sides up to 4096 pixels; 4 bytes a sample.
// WIDE 1: bits of the float32 value << 32 | y << 16 | x; 8 bytes a sample.
// All bits set: no sample (padding, an excluded pixel). With WIDE 0 that word is also the last pixel of a full
// 4096 x 4096 frame at value 255, so sides are limited to 4095 where there may be padding.
#if WIDE
typedef u64 Word;
#else
typedef u32 Word;
#endif
#define NO_SAMPLE Word(-1)

struct Sample {
    float value;
    int x, y;
};

__device__ __forceinline__ Word pack(float value, int x, int y) {
#if WIDE
    return u64(__float_as_uint(value)) << 32 | u64(y) << 16 | u64(x);
#else
    return u32(value) << 24 | u32(y) << 12 | u32(x);
#endif
}

__device__ __forceinline__ Sample unpack(Word word) {
#if WIDE
    return {__uint_as_float(u32(word >> 32)), int(word & 0xffff), int(word >> 16 & 0xffff)};
#else
    return {float(word >> 24), int(word & 0xfff), int(word >> 12 & 0xfff)};
#endif
}
