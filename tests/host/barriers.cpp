// Barriers of a block, collectives of a warp: where fibers wait for each other, and the rules they must keep.
#include "state.h"

static const char* const WARP_OPS[] = {"__syncwarp",       "__shfl_sync",    "__shfl_xor_sync",
                                       "__shfl_down_sync", "__shfl_up_sync", "a vote"};

// Fails where lanes wait in a collective for one that went elsewhere, to where it in turn waits for `mask`.
void check_not_wanted(const Fiber* self, const char* where, u32 mask) {
    const Warp& warp = *self->warp;
    for (int i = 0; i < warp.n_groups; i++) {
        const Group& group = warp.groups[i];
        if ((group.mask >> self->lane & 1) && (group.arrived & mask))
            fail(self, "missing lanes: %s, while lanes 0x%08x wait for it in %s of line %d", where, group.arrived,
                 WARP_OPS[group.op], group.line);
    }
}

namespace {

void complete_barrier(Block& block, int op) {
    block.result = op == BARRIER_COUNT ? block.counted
                   : op == BARRIER_AND ? block.counted == block.threads
                                       : block.counted > 0;
    block.waiting = block.counted = 0;
    block.generation++;
    for (int i = 0; i < engine.n_warps; i++) {
        Warp& warp = engine.warps[i];
        if (warp.block != &block) continue;
        warp.at_barrier = 0;
        wake(warp, ALL_LANES);
    }
    engine.chosen = nullptr;
}

void check_barrier(const Fiber* self, int op, int line) {
    const Block& block = *self->warp->block;
    if (block.exited) fail(self, "divergent barrier: %d threads of the block have ended without it", block.exited);
    if (block.waiting && (block.op != op || block.line != line))
        fail(self, "divergent barrier: %d threads of the block wait at another one, in line %d", block.waiting,
             block.line);
    check_not_wanted(self, "the thread is at a barrier of the block", ALL_LANES);
}

Group& join(const Fiber* self, int op, u32 mask, int line) {
    Warp& warp = *self->warp;
    for (int i = 0; i < warp.n_groups; i++) {
        Group& group = warp.groups[i];
        if (group.mask == mask && group.op == op && group.line == line) return group;
    }
    const char* name = WARP_OPS[op];
    if (!(mask >> self->lane & 1)) fail(self, "%s: the lane is not in its own mask 0x%08x", name, mask);
    if (mask & warp.exited) fail(self, "%s: missing lanes: 0x%08x have ended", name, mask & warp.exited);
    if (mask & warp.at_barrier)
        fail(self, "%s: missing lanes: 0x%08x wait at a barrier of the block", name, mask & warp.at_barrier);
    check_not_wanted(self, "the thread is in another collective", mask);
    return warp.groups[warp.n_groups++] = {mask, 0, op, line};
}

// The lane whose value `fiber` gets; its own where CUDA says so.
int source_lane(const Fiber& fiber, int op, u32 mask) {
    const Warp& warp = *fiber.warp;
    int lane = fiber.lane, arg = warp.arg[lane], width = warp.width[lane], first = lane & ~(width - 1);
    if (width < 1 || width > WARP || (width & (width - 1))) fail(&fiber, "a shuffle of width %d", width);
    if (arg < 0 || arg >= (op == SHUFFLE ? width : WARP))
        fail(&fiber, "%s: lane or distance %d is out of range for width %d", WARP_OPS[op], arg, width);
    int from = op == SHUFFLE       ? first + arg
               : op == SHUFFLE_XOR ? lane ^ arg
               : op == SHUFFLE_UP  ? lane - arg
                                   : lane + arg;
    if (from >= first + width || (op == SHUFFLE_UP && from < first)) from = lane;
    if (!(mask >> from & 1)) fail(&fiber, "%s: reads lane %d, which is not in the mask", WARP_OPS[op], from);
    return from;
}

void complete_collective(Warp& warp, Group& group) {
    u64 ballot = 0;
    for (u32 left = group.mask; left; left &= left - 1) {
        int lane = __builtin_ctz(left);
        if (group.op == BALLOT)
            ballot |= warp.value[lane] << lane;
        else if (group.op != SYNC_WARP)
            warp.result[lane] = warp.value[source_lane(warp.fibers[lane], group.op, group.mask)];
    }
    for (u32 left = group.mask; left && group.op == BALLOT; left &= left - 1) warp.result[__builtin_ctz(left)] = ballot;
    wake(warp, group.mask);
    group = warp.groups[--warp.n_groups];
}

}  // namespace

extern "C" int host_barrier(int op, int predicate, int line) {
    Fiber* self = engine.running;
    Block& block = *self->warp->block;
    self->line = line;
    check_barrier(self, op, line);
    block.op = op;
    block.line = line;
    block.counted += predicate;
    char* sync = &block.sync[block.generation % 2];
    sync_release(sync);
    if (++block.waiting == block.threads)
        complete_barrier(block, op);
    else
        self->warp->at_barrier |= 1u << self->lane;
    suspend();
    sync_acquire(sync);
    return block.result;
}

// Only __syncwarp orders memory; shuffles and votes do not, on the device as here.
extern "C" unsigned long long host_warp(int op, u32 mask, u64 value, int arg, int width, int line) {
    Fiber* self = engine.running;
    Warp& warp = *self->warp;
    int lane = self->lane;
    self->line = line;
    Group& group = join(self, op, mask, line);
    group.arrived |= 1u << lane;
    warp.value[lane] = value;
    warp.arg[lane] = arg;
    warp.width[lane] = width;
    char* sync = &warp.sync[warp.passed[lane] % 2];
    if (op == SYNC_WARP) warp.passed[lane]++, sync_release(sync);
    if (group.arrived == mask) complete_collective(warp, group);
    suspend();
    if (op == SYNC_WARP) sync_acquire(sync);
    return warp.result[lane];
}

extern "C" void host_yield(int line) {
    Fiber* self = engine.running;
    self->line = line;
    self->warp->spinning |= 1u << self->lane;
    suspend();
}
