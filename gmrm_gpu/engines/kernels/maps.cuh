// Bit maps of the visited pixels of each frame, one map a phase.
#pragma once
#include "common.cuh"

// (F, words, height, n_phases) u32, words = ceil(width / 32): bit x % 32 of [f][x / 32][y][phase] says that pixel
// (x, y) of frame f was visited and has that phase. The rows of one column of words are neighbours in memory: lanes
// that look at successive rows share cache lines.
__device__ __forceinline__ i64 map_place(i64 frame, int n_phases, int phase, int words, int height, int word, int y) {
    return ((frame * words + word) * height + y) * n_phases + phase;
}

__device__ __forceinline__ void paint(u32* maps, i64 frame, int n_phases, int phase, int words, int height, int x,
                                      int y) {
    atomicOr(maps + map_place(frame, n_phases, phase, words, height, x / 32, y), 1u << x % 32);
}
