// What ThreadSanitizer is told of fences and atomics, the rule of CUDA's memory model: what a thread did before a fence
// is seen behind the fence of another, where an atomic after the first reached one before the second.
#include "state.h"

#if defined(HOST_TSAN)
#include <map>
#include <utility>

namespace {

// The address of one stands for all that its thread had seen and done by then.
struct alignas(8) Fence {
    const Block* block;
    bool whole_device;
};

typedef std::map<std::pair<const Fiber*, bool>, Fence*>
    Latest;  // of each thread, fences of the block and of the device

std::map<const Fiber*, Latest> own, met;  // fences of a thread; fences of others that reached it since its last one
std::map<const void*, Latest> left;       // fences before atomics, by the place these changed

void merge(Latest& into, const Latest& from) {
    for (auto& entry : from) into[entry.first] = entry.second;
}

void order(Fiber* self, bool whole_device) {
    const Block* block = self->warp->block;
    for (auto& entry : met[self]) {
        Fence* fence = entry.second;
        if (fence->block == block || (fence->whole_device && whole_device)) sync_acquire(fence);
    }
    met[self].clear();
    Fence* fence = new Fence{block, whole_device};
    sync_release(fence);
    own[self][{self, whole_device}] = fence;
}

}  // namespace

extern "C" void host_atomic(const void* place) {
    Latest& there = left[place];
    merge(met[engine.running], there);
    merge(there, own[engine.running]);
}

#else
static void order(Fiber*, bool) {}
#endif

extern "C" void host_fence(int whole_device, int line) {
    order(engine.running, whole_device);
    if (whole_device) host_yield(line);  // a loop that waits may have nothing else to let others go on
}
