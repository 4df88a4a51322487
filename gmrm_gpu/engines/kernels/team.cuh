// Blocks that work on one fit together: they add up parts of its samples and meet after every pass.
#pragma once
#include "common.cuh"

struct Team {
    int size, rank;
    u32* arrived;      // how often any block of the team has arrived, in device memory, zero before the launch
    u32 goal;          // as of the last meeting
    double* partials;  // (2, n_chunks, n_sums): two sets, so that the next pass may begin while others still add
    int turn;

    // Waits until every block of the team has come here; what they wrote before is then visible to all threads of this
    // one, by plain loads: barrier, fence, atomic, fence, barrier is a chain in PTX's causality order, the same as in
    // cooperative groups' grid.sync(). All blocks run at the same time (a cooperative launch).
    __device__ __forceinline__ void meet() {
        __syncthreads();
        if (threadIdx.x == 0) {
            goal += size;
            __threadfence();
            atomicAdd(arrived, 1u);
            while (int(atomicAdd(arrived, 0u) - goal) < 0) __nanosleep(100);
            __threadfence();
        }
        __syncthreads();
    }
};
