// What the compiled kernel and the fiber engine know of each other. The engine is a translation unit of its own, built
// without instrumentation, so that a sanitizer sees only what the kernel itself does.
#pragma once

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

// Where a thread is: what threadIdx and blockIdx read.
struct HostIndex {
    dim3 thread, block;
};

enum HostSchedule { IN_ORDER, REVERSED, RANDOM };
enum HostWarpOp { SYNC_WARP, SHUFFLE, SHUFFLE_XOR, SHUFFLE_DOWN, SHUFFLE_UP, BALLOT };
enum HostBarrierOp { BARRIER, BARRIER_COUNT, BARRIER_AND, BARRIER_OR };

struct HostLaunch {
    dim3 grid, block;
    unsigned shared_bytes, cooperative, schedule, seconds;
    unsigned long long seed;
};

// The first fault of a launch; thread and line are -1 where they are not known.
struct HostFault {
    char message[1000];
    int block, thread, line;
};

// One parameter of a kernel, or what it points at. kind: f float, i integer, s anything else.
struct HostParameter {
    int size, is_pointer, is_const;
    char kind;
};

extern "C" {
extern const HostIndex* host_index;  // of the running thread
extern dim3 host_block_size, host_grid_size;

unsigned long long host_warp(int op, unsigned mask, unsigned long long value, int arg, int width, int line);
int host_barrier(int op, int predicate, int line);
void host_fence(int whole_device, int line);
void host_atomic(const void* place);  // ThreadSanitizer builds only
void host_yield(int line);
unsigned char* host_shared();
void host_guard(void* start, int bytes);
int host_launch(void (*kernel)(void**), void** args, const HostLaunch* launch, HostFault* fault);
}

#define HOST_RED_ZONE 64  // bytes behind each carved array of shared memory
