// Runs the blocks of a kernel on one CPU thread, a fiber for each CUDA thread. A fiber runs until it waits: at a
// barrier, in a warp collective, or in a spinning loop. Then the schedule picks the next one: the warps in order, in
// reverse or at random, each as far as it gets.
#include "engine.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "sanitizers.h"
#include "switch.h"

typedef unsigned u32;
typedef unsigned long long u64;

namespace {

constexpr int WARP = 32, MAX_GUARDS = 256, SPIN_LIMIT = 20000;
constexpr u32 MAX_SHARED = 227 * 1024;  // of sm_90
constexpr unsigned char UNSET = 0xff, CANARY = 0xa5;

struct Guard {
    unsigned char* start;
    int bytes;
};

struct Block {
    int number, threads, waiting, exited, counted, result, generation, barrier_op, barrier_line;
    unsigned char* shared;
    int n_guards;
    Guard guards[MAX_GUARDS];
    char sync[2];  // addresses that stand for the barriers of even and odd generation
};

struct Fiber;

struct Warp {
    Block* block;
    Fiber* fibers;
    u32 ready, waiting, at_barrier, exited, spinning;  // one bit a lane
    u64 value[WARP], result[WARP];
    int arg[WARP], width[WARP];
    int generation[WARP];
    char sync[2];
};

struct Fiber {
    HostIndex index;
    Context context;
    Warp* warp;
    int lane, op, line;
    u32 mask;
    char* stack;
    Sanitized sanitized;
};

struct Engine {
    void (*kernel)(void**);
    void** args;
    HostLaunch launch;
    HostFault* fault;
    Fiber main;
    Fiber* running;
    Warp* chosen;
    int n_warps, n_alive, spins;
    u64 random;
    Block* blocks;
    Warp* warps;
    Fiber* fibers;
    char* stacks;
    size_t stacks_bytes;
    char exits;  // address that stands for the end of the launch
};
Engine engine;

int global_thread(const Fiber* fiber) { return int(fiber - fiber->warp->block->number * 0 - fiber->warp->fibers); }

}  // namespace
