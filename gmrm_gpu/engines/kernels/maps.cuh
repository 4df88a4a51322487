// Bit maps of the visited pixels of each frame, one map a phase.
#pragma once
#include "common.cuh"

// (F, n_phases, words, height) u32, words = ceil(width / 32): bit x % 32 of [f][phase][x / 32][y] says that pixel
// (x, y) of frame f was visited and has that phase. The rows of one column of words are neighbours in memory: lanes
// that look at successive rows share cache lines.
__device__ __forceinline__ i64 map_place(i64 frame, int n_phases, int phase, int words, int height, int x, int y) {
    return ((frame * n_phases + phase) * words + x / 32) * height + y;
}

__device__ __forceinline__ void paint(u32* maps, i64 place, int x) { atomicOr(maps + place, 1u << x % 32); }
