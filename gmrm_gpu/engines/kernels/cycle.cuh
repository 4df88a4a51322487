// One fit's way through SQUAREM cycles: the same algorithm as mixture/driver.py. A cycle evaluates the objective at its
// first iterate (phase 0), its second (phase 1) and the extrapolated point (phase 2), kept unless the objective fell.
// With a histogram the last two are settled points, and a second that fell is taken back too.
#pragma once
#include "step.cuh"

constexpr int CONVERGED = 0, MAX_ITER = 1, DROPPED = 2, DEGENERATE = 3, TOO_FEW = 4;  // as results.FitStatus
constexpr int QUIET_CYCLES = 2;  // cycles in a row that must gain too little; see mixture/driver.py

struct Cycle {
    double theta[N_PARAMETERS], follow[N_PARAMETERS], first[N_PARAMETERS];
    double fallback[N_PARAMETERS], last[N_PARAMETERS];
    double first_value, last_value, limit, length;
    int phase, quiet, n_iter, ended;  // ended: -1 while it runs, else a status
    int settled, refused;             // whether theta was settled on a histogram; how often such a point was taken back
};

__device__ __forceinline__ void copy_theta(const double* from, double* to) {
    if (lane_id() < N_PARAMETERS) to[lane_id()] = from[lane_id()];
    __syncwarp();
}

// By one thread; theta, n_iter and ended are the caller's.
__device__ __forceinline__ void begin_cycles(Cycle* cycle) {
    cycle->first_value = cycle->last_value = -1e300;
    cycle->phase = cycle->quiet = cycle->settled = cycle->refused = 0;
    cycle->limit = 4.0;
    cycle->length = 0.0;
}

__device__ __forceinline__ void end_fit(Cycle* cycle, const double* theta, double value, int status) {
    copy_theta(theta, cycle->last);
    if (lane_id() == 0) {
        cycle->last_value = value;
        cycle->ended = status;
    }
    __syncwarp();
}

// Where a fit under the fast schedule goes from theta, whose objective is `value` and whose M-step gives follow; one
// warp.
__device__ __forceinline__ void advance_cycle(Cycle* cycle, double value, double gain, double floor) {
    bool jumped = cycle->phase == 2, settled = HISTOGRAM && cycle->settled;
    bool fell = (jumped || settled) && !(value >= cycle->last_value);
    bool is_second = cycle->phase == 1 && !fell, begins = !is_second && !fell;
    bool small = value - cycle->first_value <= gain;
    int quiet = begins ? (small ? cycle->quiet + 1 : 0) : cycle->quiet;
    if (quiet >= QUIET_CYCLES) return end_fit(cycle, cycle->theta, value, CONVERGED);
    double limit = cycle->limit, length = cycle->length;
    if (begins && jumped && length >= limit) limit *= 4.0;
    if (fell && jumped) limit = limit < 2.0 ? 1.0 : limit > 2e6 ? 1e6 : 0.5 * limit;
    if (!fell) {
        copy_theta(cycle->theta, cycle->last);
        copy_theta(cycle->follow, cycle->fallback);
    }
    if (begins) copy_theta(cycle->theta, cycle->first);
    if (is_second)
        length = extrapolate(cycle->first, cycle->last, cycle->follow, limit, floor, cycle->theta);
    else
        copy_theta(cycle->fallback, cycle->theta);
    if (lane_id() == 0) {
        cycle->quiet = quiet;
        cycle->limit = limit;
        cycle->length = length;
        if (!fell) cycle->last_value = value;
        // The highest, not the latest: rounding could make the latest rise and fall for ever.
        if (begins && value > cycle->first_value) cycle->first_value = value;
        if (fell && settled) cycle->refused += 1;
        cycle->phase = fell ? 0 : is_second ? 2 : 1;
    }
    __syncwarp();
}
