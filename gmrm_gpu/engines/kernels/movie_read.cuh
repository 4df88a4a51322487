// What a fitted movie says of single samples (METHOD.md 6, `mixture.movie_labels.Reader`): parameters stay as they are.
#pragma once
#include "movie_pass.cuh"

// Sums over samples, or cells, of one frame are those of parts of this many in their order, so that they do not depend
// on how many blocks share them.
constexpr int PART = 1024;

__device__ __forceinline__ i64 n_parts(i64 n) { return (n + PART - 1) / PART; }

// A replicate's parameters (R, N_COMMON), (R, T, DRIFT) and the densities of one of its frames, in shared memory.
struct Reading {
    Common common;
    double theta[N_PARAMETERS];
    double count[K];
    Densities at;
    float weights[K];  // of the frame
};

__device__ __forceinline__ void read_common(const double* common, Reading* reading) {
    double* to = reinterpret_cast<double*>(&reading->common);
    for (int i = threadIdx.x; i < N_COMMON; i += blockDim.x) to[i] = common[i];
    __syncthreads();
}

// Densities of the frame with deviation `drift` (DRIFT).
__device__ __forceinline__ void read_frame(const double* drift, Reading* reading) {
    if (warp_id() == 0) {
        int i = lane_id();
        if (i < N_PARAMETERS) reading->theta[i] = frame_theta(reading->common, drift, i);
        __syncwarp();
        make_densities(reading->theta, &reading->at);
    }
    __syncthreads();
}

// What one sample is: its cell in the maps and, with weights from there, its responsibilities.
struct Read {
    int row, column;
    float weight[K], resp[K];
};

__device__ __forceinline__ Read read_sample(const Sample& sample, const Units& units, const Densities& at,
                                            const Weights& weights) {
    Read read;
    float basis[P], dev[K];
    read.row = weights.maps.row_of(sample.y);
    read.column = weights.maps.column_of(sample.x);
    weights.at(read.row, read.column, read.weight);
    monomials(float(sample.x) * units.step_x + units.first_x, float(sample.y) * units.step_y + units.first_y, basis);
    e_step_weighted(residual_of(standardised(sample.value, units), basis, at), at, read.weight, read.resp, dev);
    return read;
}

// Calls use(i, sums) for every place i < n of a frame, a warp a part, shared by the warps of the group; what it adds to
// sums (N) goes to parts (n_parts, N) float64.
template <class Real, int N, class Group, class Use>
__device__ __forceinline__ void sum_parts(const Group& group, i64 n, double* parts, Use use) {
    for (i64 part = group.first() / WARP; part < n_parts(n); part += group.stride() / WARP) {
        Real sums[N];
#pragma unroll
        for (int k = 0; k < N; ++k) sums[k] = Real(0);
        i64 end = (part + 1) * PART < n ? (part + 1) * PART : n;
        for (i64 i = part * PART + lane_id(); i < end; i += WARP) use(i, sums);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            double total = warp_sum(double(sums[k]));
            if (lane_id() == 0) parts[part * N + k] = total;
        }
    }
}

// total[k] = the sum over the parts, the same in every block.
template <int N>
__device__ __forceinline__ void add_parts(i64 n, const double* parts, double* total) {
    for (int k = warp_id(); k < N; k += n_warps()) {
        double sum = 0.0;
        for (i64 part = lane_id(); part < n_parts(n); part += WARP) sum += parts[part * N + k];
        sum = warp_sum(sum);
        if (lane_id() == 0) total[k] = sum;
    }
    __syncthreads();
}

__device__ __forceinline__ float foreground_of(const float (&values)[K], const u8* foreground) {
    float total = 0.0f;
#pragma unroll
    for (int k = 0; k < K; ++k) total += foreground[k] ? values[k] : 0.0f;
    return total;
}
