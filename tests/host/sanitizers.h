// What a sanitizer has to be told of fibers: nothing in a plain build.
//
// For ThreadSanitizer each CUDA thread is a thread of its own, and only barriers, warp synchronisation and fences order
// them: a switch between fibers does not. So two accesses that nothing orders are reported whatever the schedule was.
#pragma once
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

struct Sanitized {
    void* fake_stack = nullptr;  // AddressSanitizer
    void* thread = nullptr;      // ThreadSanitizer
    char* stack = nullptr;
    size_t bytes = 0;
};

#if defined(HOST_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

constexpr size_t STACK_BYTES = 256 * 1024;
inline void sanitized_main(Sanitized& main, void (*at_report)()) {
    main = Sanitized();
    __sanitizer_set_death_callback(at_report);
}
inline void sanitized_start(Sanitized&, int, int) {}
inline void sanitized_end(Sanitized&) {}
inline void sanitized_leave(Sanitized& from, Sanitized& to, bool for_good) {
    __sanitizer_start_switch_fiber(for_good ? nullptr : &from.fake_stack, to.stack, to.bytes);
}
// `back`: whose stack was left, filled in where its bounds are not known yet.
inline void sanitized_enter(Sanitized& self, Sanitized* back) {
    const void* stack = nullptr;
    size_t bytes = 0;
    __sanitizer_finish_switch_fiber(self.fake_stack, &stack, &bytes);
    if (back && !back->stack) back->stack = static_cast<char*>(const_cast<void*>(stack)), back->bytes = bytes;
}
inline void memory_forbid(void* start, size_t bytes) { __asan_poison_memory_region(start, bytes); }
inline void memory_allow(void* start, size_t bytes) { __asan_unpoison_memory_region(start, bytes); }
inline void memory_release(void* start) { free(start); }
inline void sync_release(void*) {}
inline void sync_acquire(void*) {}

#elif defined(HOST_TSAN)
#include <sanitizer/tsan_interface.h>

constexpr size_t STACK_BYTES = 64 * 1024;
inline void sanitized_main(Sanitized& main, void (*)()) { main.thread = __tsan_get_current_fiber(); }
inline void sanitized_start(Sanitized& fiber, int block, int thread) {
    char name[64];
    snprintf(name, sizeof(name), "block %d, thread %d", block, thread);
    fiber.thread = __tsan_create_fiber(0);
    __tsan_set_fiber_name(fiber.thread, name);
}
// Races with a thread that was destroyed are not reported, so the last ones live on.
inline void sanitized_end(Sanitized& fiber) {
    static void* last[512];
    static int turn = 0;
    if (last[turn]) __tsan_destroy_fiber(last[turn]);
    last[turn] = fiber.thread;
    turn = (turn + 1) % 512;
}
inline void sanitized_leave(Sanitized&, Sanitized& to, bool) {
    __tsan_switch_to_fiber(to.thread, __tsan_switch_to_fiber_no_sync);
}
inline void sanitized_enter(Sanitized&, Sanitized*) {}
inline void memory_forbid(void*, size_t) {}
inline void memory_allow(void*, size_t) {}
inline void memory_release(void*) {}  // nothing orders its threads with the next block; the process ends soon
inline void sync_release(void* place) { __tsan_release(place); }
inline void sync_acquire(void* place) { __tsan_acquire(place); }

#else

constexpr size_t STACK_BYTES = 64 * 1024;
inline void sanitized_main(Sanitized&, void (*)()) {}
inline void sanitized_start(Sanitized&, int, int) {}
inline void sanitized_end(Sanitized&) {}
inline void sanitized_leave(Sanitized&, Sanitized&, bool) {}
inline void sanitized_enter(Sanitized&, Sanitized*) {}
inline void memory_forbid(void*, size_t) {}
inline void memory_allow(void*, size_t) {}
inline void memory_release(void* start) { free(start); }
inline void sync_release(void*) {}
inline void sync_acquire(void*) {}

#endif
