// The shared memory of a block: NaN bytes at the start, a red zone behind each array that the kernel carves.
#include <stdlib.h>
#include <string.h>

#include "state.h"

namespace {

constexpr unsigned char UNSET = 0xff, CANARY = 0xa5;
constexpr size_t RED = HOST_RED_ZONE;

size_t rounded(size_t bytes) { return (bytes + 15) / 16 * 16; }

void close_off(unsigned char* start, unsigned char* end) {
    memset(start, CANARY, end - start);
    memory_forbid(start, end - start);
}

void open_up(unsigned char* start, unsigned char* end) {
    memory_allow(start, end - start);
    memset(start, UNSET, end - start);
}

bool intact(const unsigned char* start, const unsigned char* end) {
    while (start < end && *start == CANARY) start++;
    return start == end;
}

// The first byte behind what was declared, were all of it carved into the arrays so far.
unsigned char* tail(const Block& block) {
    return block.shared + rounded(engine.launch.shared_bytes) + block.n_guards * RED;
}

unsigned char* end_of(const Guard& guard) { return guard.start + guard.bytes; }
unsigned char* end_of_zone(const Guard& guard) { return guard.start + rounded(guard.bytes) + RED; }

void check_zones(const Block& block, const Fiber* at) {
    for (int i = 0; i < block.n_guards; i++) {
        const Guard& guard = block.guards[i];
        if (!intact(end_of(guard), end_of_zone(guard)))
            report(at, -1, "block %d: something was written behind array %d of shared memory (%d bytes)", block.number,
                   i, guard.bytes);
    }
    if (!intact(tail(block), tail(block) + RED))
        report(at, -1, "block %d: something was written behind the %u bytes of shared memory", block.number,
               engine.launch.shared_bytes);
}

void drop_last(Block& block) {
    const Guard& guard = block.guards[block.n_guards - 1];
    open_up(end_of(guard), end_of_zone(guard));
    block.n_guards--;
    close_off(tail(block), tail(block) + RED);
}

}  // namespace

void shared_open(Block& block) {
    size_t bytes = rounded(engine.launch.shared_bytes) + (MAX_GUARDS + 2) * RED;
    block.shared = static_cast<unsigned char*>(aligned_alloc(128, (bytes + 127) / 128 * 128));
    memset(block.shared, UNSET, bytes);
    close_off(tail(block), block.shared + bytes);
}

void shared_close(Block& block) {
    if (!engine.fault->message[0]) check_zones(block, nullptr);
    memory_allow(block.shared, rounded(engine.launch.shared_bytes) + (MAX_GUARDS + 2) * RED);
    memory_release(block.shared);
}

extern "C" unsigned char* host_shared() { return engine.running->warp->block->shared; }

// Every thread carves the same arrays; the first to come sets each one up. An array that starts before others takes
// their place: the memory is used again for something else.
extern "C" void host_guard(void* start, int bytes) {
    Fiber* self = engine.running;
    Block& block = *self->warp->block;
    unsigned char* from = static_cast<unsigned char*>(start);
    for (int i = 0; i < block.n_guards; i++)
        if (block.guards[i].start == from && block.guards[i].bytes == bytes) return;
    check_zones(block, self);
    if (engine.fault->message[0]) leave_launch();
    while (block.n_guards && block.guards[block.n_guards - 1].start >= from) drop_last(block);
    size_t taken = from - block.shared - block.n_guards * RED + bytes;
    if (bytes < 0 || taken > engine.launch.shared_bytes)
        fail(self, "shared memory: array %d ends at byte %llu, but the launch declares %u", block.n_guards, u64(taken),
             engine.launch.shared_bytes);
    if (block.n_guards == MAX_GUARDS) fail(self, "more than %d arrays of shared memory", MAX_GUARDS);
    open_up(tail(block), tail(block) + RED);
    block.guards[block.n_guards++] = {from, bytes};
    close_off(end_of(block.guards[block.n_guards - 1]), end_of_zone(block.guards[block.n_guards - 1]));
}
