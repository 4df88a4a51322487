// What the engine keeps of the running launch, and its two parts' view of each other.
#pragma once
#include <stddef.h>

#include "engine.h"
#include "sanitizers.h"
#include "switch.h"

typedef unsigned u32;
typedef unsigned long long u64;

constexpr int WARP = 32, MAX_GUARDS = 256;
constexpr u32 ALL_LANES = ~0u;

struct Guard {
    unsigned char* start;
    int bytes;
};

struct Block {
    int number, threads;
    int waiting, exited, generation;  // at the barrier; ended; barriers passed
    int op, line, counted, result;    // of the barrier that threads wait at; true predicates; what it returns
    unsigned char* shared;
    int n_guards;
    Guard guards[MAX_GUARDS];
    char sync[2];  // addresses that stand for barriers of even and odd generation
};

struct Fiber;

// Lanes in a collective that not all lanes of its mask have reached.
struct Group {
    u32 mask, arrived;
    int op, line;
};

struct Warp {
    Block* block;
    Fiber* fibers;
    u32 ready, spinning;  // one bit a lane: can go on; lets others go first
    u32 at_barrier, exited;
    int n_groups;
    Group groups[WARP];  // collectives that are not complete: one, but where masks differ
    u64 value[WARP], result[WARP];
    int arg[WARP], width[WARP];
    int passed[WARP];  // __syncwarps
    char sync[2];
};

struct Fiber {
    HostIndex index;
    Context context;
    Warp* warp;
    int lane, thread;
    int line;  // where it waited last
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
    Warp* chosen;                              // the warp that goes on while it can
    int n_blocks, n_warps, n_fibers, n_alive;  // resident
    int spins;                                 // rounds in which all that could go on were spinning
    u64 random;
    Block* blocks;
    Warp* warps;
    Fiber* fibers;
    char* stacks;
    size_t stacks_bytes;
    char exits;  // an address that stands for the end of threads
};

extern Engine engine;

// fibers.cpp
[[noreturn]] void leave_launch();
[[noreturn]] void fail(const Fiber* at, const char* format, ...);
void report(const Fiber* at, int line, const char* format, ...);
void suspend();
void wake(Warp& warp, u32 lanes);
u32 random_below(u32 n);

// barriers.cpp
void check_not_wanted(const Fiber* self, const char* where, u32 mask);

// shared.cpp
void shared_open(Block& block);
void shared_close(Block& block);
