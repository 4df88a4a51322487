// Bit maps of labels that the label kernel did not make.
//
// Compile-time: WIDE.
#include "samples.cuh"
#include "maps.cuh"

#define N_THREADS 256

// Block b has `length` samples from (b % chunks) * length of fit b / chunks.
//
// samples: (F, m). labels: (F, m). maps: see maps.cuh, zero before.
extern "C" __global__ void __launch_bounds__(N_THREADS)
    paint_maps(const Word* __restrict__ samples, const u8* __restrict__ labels, u32* __restrict__ maps, int m,
               int length, int chunks, int height, int width, int n_phases) {
    i64 fit = blockIdx.x / chunks;
    int start = blockIdx.x % chunks * length, stop = min(start + length, m);
    for (int j = start + threadIdx.x; j < stop; j += N_THREADS) {
        int label = labels[fit * m + j];
        if (label == NOT_VISITED) continue;
        Sample sample = unpack(samples[fit * m + j]);
        paint(maps, fit, n_phases, label, (width + 31) / 32, height, sample.x, sample.y);
    }
}
