// Runs the blocks of a kernel on one CPU thread, a fiber for each CUDA thread. A fiber runs until it waits: at a
// barrier, in a warp collective, or in a spinning loop. Then the schedule picks the next one: the warps in order, in
// reverse or at random, each as far as it gets.
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "state.h"

const HostIndex* host_index;
dim3 host_block_size, host_grid_size;
Engine engine;

namespace {

constexpr int SPIN_LIMIT = 20000;
constexpr size_t PAGE = 4096, MANY_BYTES = 4 << 20;
constexpr u32 MAX_THREADS = 1024, MAX_SHARED = 227 * 1024;  // of sm_90

// ---- which fiber is next

int choose_lane(u32 ready) {
    if (engine.launch.schedule == IN_ORDER) return __builtin_ctz(ready);
    if (engine.launch.schedule == REVERSED) return 31 - __builtin_clz(ready);
    int turn = random_below(WARP);
    u32 turned = turn ? ready >> turn | ready << (WARP - turn) : ready;
    return (__builtin_ctz(turned) + turn) % WARP;
}

Warp* choose_warp() {
    int n = engine.n_warps, first = engine.launch.schedule == RANDOM ? random_below(n) : 0;
    for (int i = 0; i < n; i++) {
        Warp& warp = engine.warps[engine.launch.schedule == REVERSED ? n - 1 - i : (first + i) % n];
        if (warp.ready) return &warp;
    }
    return nullptr;
}

// Spinning fibers look again once nobody else can go on. Returns whether there are any.
bool wake_spinning() {
    bool any = false;
    for (int i = 0; i < engine.n_warps; i++) {
        Warp& warp = engine.warps[i];
        any |= warp.spinning != 0;
        warp.ready |= warp.spinning;
        warp.spinning = 0;
    }
    return any;
}

Fiber* next_fiber() {
    bool change = engine.launch.schedule == RANDOM && random_below(16) == 0;  // so that no warp always goes on
    if (!engine.chosen || !engine.chosen->ready || change) engine.chosen = choose_warp();
    if (!engine.chosen) {
        if (!wake_spinning()) fail(engine.running, "deadlock: no thread can go on");
        if (++engine.spins > SPIN_LIMIT)
            fail(engine.running, "deadlock: the threads that can go on spin, and nothing changes");
        engine.chosen = choose_warp();
    }
    int lane = choose_lane(engine.chosen->ready);
    engine.chosen->ready &= ~(1u << lane);
    return engine.chosen->fibers + lane;
}

void switch_to(Fiber* next, bool for_good) {
    Fiber* self = engine.running;
    if (next == self) return;
    engine.running = next;
    host_index = &next->index;
    sanitized_leave(self->sanitized, next->sanitized, for_good);
    context_switch(self->context, next->context);
    sanitized_enter(self->sanitized, nullptr);
}

void end_of_thread() {
    Fiber* self = engine.running;
    Warp& warp = *self->warp;
    warp.exited |= 1u << self->lane;
    warp.block->exited++;
    engine.n_alive--;
    engine.spins = 0;
    if (warp.block->waiting)
        fail(self, "divergent barrier: the thread ended while %d threads of the block wait at the barrier of line %d",
             warp.block->waiting, warp.block->line);
    check_not_wanted(self, "the thread ended", ALL_LANES);
    sync_release(&engine.exits);
    switch_to(engine.n_alive ? next_fiber() : &engine.main, true);
    abort();
}

void fiber_main() {
    sanitized_enter(engine.running->sanitized, &engine.main.sanitized);
    engine.kernel(engine.args);
    end_of_thread();
}

// ---- stacks, blocks and threads

// One stretch of memory for all stacks, a page that faults below each. ThreadSanitizer forgets what earlier fibers did
// there only when it is mapped anew.
bool map_stacks(int n) {
    size_t each = STACK_BYTES + PAGE, bytes = each * n;
#ifndef HOST_TSAN
    if (engine.stacks_bytes >= bytes) return true;
#endif
    if (engine.stacks) munmap(engine.stacks, engine.stacks_bytes);
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    engine.stacks = memory == MAP_FAILED ? nullptr : static_cast<char*>(memory);
    engine.stacks_bytes = engine.stacks ? bytes : 0;
    for (int i = 0; engine.stacks && i < n; i++) mprotect(engine.stacks + i * each, PAGE, PROT_NONE);
    return engine.stacks;
}

void make_fiber(Fiber& fiber, Warp& warp, int thread, int slot) {
    const dim3 block = engine.launch.block, grid = engine.launch.grid;
    u32 t = thread, b = warp.block->number;
    fiber.index.thread = {t % block.x, t / block.x % block.y, t / (block.x * block.y)};
    fiber.index.block = {b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)};
    fiber.warp = &warp;
    fiber.thread = thread;
    fiber.lane = thread % WARP;
    fiber.stack = engine.stacks + slot * (STACK_BYTES + PAGE) + PAGE;
    fiber.sanitized.stack = fiber.stack;
    fiber.sanitized.bytes = STACK_BYTES;
    memory_allow(fiber.stack, STACK_BYTES);
    context_make(fiber.context, fiber.stack, STACK_BYTES, fiber_main);
    sanitized_start(fiber.sanitized, b, thread);
}

template <class T>
T* fresh(int n) {
    return static_cast<T*>(calloc(n, sizeof(T)));
}

bool open_blocks(const int* numbers, int n) {
    int threads = host_block_size.x * host_block_size.y * host_block_size.z, warps = threads / WARP;
    engine.n_blocks = n;
    engine.n_warps = n * warps;
    engine.n_fibers = engine.n_alive = n * threads;
    engine.blocks = fresh<Block>(n);
    engine.warps = fresh<Warp>(n * warps);
    engine.fibers = fresh<Fiber>(n * threads);
    if (!map_stacks(n * threads)) return false;
    for (int b = 0; b < n; b++) {
        engine.blocks[b].number = numbers[b];
        engine.blocks[b].threads = threads;
        shared_open(engine.blocks[b]);
    }
    for (int i = 0; i < n * threads; i++) {
        Warp& warp = engine.warps[i / WARP];
        warp.block = &engine.blocks[i / threads];
        warp.fibers = engine.fibers + i / WARP * WARP;
        warp.ready = ALL_LANES;
        make_fiber(engine.fibers[i], warp, i % threads, i);
    }
    return true;
}

// Many stacks are not kept for the next launch: a test run has some hundred kernels, each with an engine of its own, and a
// stack takes two of the 65,530 mappings that Linux grants a process.
void unmap_stacks() {
    if (engine.stacks_bytes < MANY_BYTES) return;
    munmap(engine.stacks, engine.stacks_bytes);
    engine.stacks = nullptr;
    engine.stacks_bytes = 0;
}

void close_blocks() {
    for (int b = 0; b < engine.n_blocks; b++) shared_close(engine.blocks[b]);
    for (int i = 0; i < engine.n_fibers; i++) sanitized_end(engine.fibers[i].sanitized);
    memory_release(engine.blocks);
    memory_release(engine.warps);
    memory_release(engine.fibers);
}

void run_blocks(const int* numbers, int n) {
    if (!open_blocks(numbers, n)) {
        report(nullptr, -1, "no memory for %d fibers", engine.n_fibers);
        return;
    }
    engine.running = &engine.main;
    engine.chosen = nullptr;
    engine.spins = 0;
    switch_to(next_fiber(), false);
    close_blocks();
}

int* order_of_blocks(int n) {
    int* order = fresh<int>(n);
    for (int i = 0; i < n; i++) order[i] = engine.launch.schedule == REVERSED ? n - 1 - i : i;
    for (int i = n - 1; i > 0 && engine.launch.schedule == RANDOM; i--) {
        int other = random_below(i + 1), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    return order;
}

// ---- faults that come as signals: reported as the launch's fault, so that the tests go on

const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGVTALRM};
constexpr int N_SIGNALS = sizeof(SIGNALS) / sizeof(int);
struct sigaction before[N_SIGNALS];
stack_t stack_before;

void on_signal(int number) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    sigprocmask(SIG_UNBLOCK, &set, nullptr);
    if (engine.running == &engine.main) abort();
    const char* what = number == SIGVTALRM ? "no end in sight (a loop that waits has to call __nanosleep)"
                       : number == SIGFPE  ? "division by zero"
                       : number == SIGILL  ? "the kernel gives up (__trap)"
                                           : "segmentation fault";
    fail(engine.running, "%s, after line %d", what, engine.running->line);
}

void catch_signals(bool on) {
#if !defined(HOST_ASAN) && !defined(HOST_TSAN)
    static char own_stack[64 * 1024];
    stack_t stack = {};
    stack.ss_sp = own_stack;
    stack.ss_size = sizeof(own_stack);
    struct sigaction action = {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_ONSTACK;
    struct itimerval timer = {};
    timer.it_value.tv_sec = on ? engine.launch.seconds : 0;
    if (!on) setitimer(ITIMER_VIRTUAL, &timer, nullptr);
    if (on) sigaltstack(&stack, &stack_before);
    for (int i = 0; i < N_SIGNALS; i++)
        on ? sigaction(SIGNALS[i], &action, &before[i]) : sigaction(SIGNALS[i], &before[i], nullptr);
    if (!on) sigaltstack(&stack_before, nullptr);
    if (on) setitimer(ITIMER_VIRTUAL, &timer, nullptr);
#endif
}

}  // namespace

u32 random_below(u32 n) {  // splitmix64
    u64 z = engine.random += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return u32(u64(u32((z ^ z >> 31) >> 32)) * n >> 32);
}

void suspend() { switch_to(next_fiber(), false); }

void wake(Warp& warp, u32 lanes) {
    warp.ready |= lanes;
    engine.spins = 0;
}

static void write_fault(const Fiber* at, int line, const char* format, va_list values) {
    if (engine.fault->message[0]) return;
    engine.fault->line = line;
    engine.fault->block = at ? at->warp->block->number : -1;
    engine.fault->thread = at ? at->thread : -1;
    vsnprintf(engine.fault->message, sizeof(engine.fault->message), format, values);
}

void report(const Fiber* at, int line, const char* format, ...) {
    va_list values;
    va_start(values, format);
    write_fault(at, line, format, values);
    va_end(values);
}

void fail(const Fiber* at, const char* format, ...) {
    va_list values;
    va_start(values, format);
    write_fault(at, at->line, format, values);
    va_end(values);
    leave_launch();
}

void leave_launch() {
    switch_to(&engine.main, true);
    abort();
}

// Under AddressSanitizer's report.
static void tell_running() {
    const Fiber* self = engine.running;
    if (self && self->warp) fprintf(stderr, "in block %d, thread %d\n", self->warp->block->number, self->thread);
}

static bool check_launch() {
    const HostLaunch& launch = engine.launch;
    u32 threads = launch.block.x * launch.block.y * launch.block.z;
    if (!threads || threads % WARP || threads > MAX_THREADS)
        report(nullptr, -1, "%u threads: a block is whole warps, %u threads at most", threads, MAX_THREADS);
    if (!(launch.grid.x && launch.grid.y && launch.grid.z)) report(nullptr, -1, "no block to run");
    if (launch.shared_bytes > MAX_SHARED)
        report(nullptr, -1, "%u bytes of shared memory, %u are the limit", launch.shared_bytes, MAX_SHARED);
    return !engine.fault->message[0];
}

extern "C" int host_launch(void (*kernel)(void**), void** args, const HostLaunch* launch, HostFault* fault) {
    engine.kernel = kernel;
    engine.args = args;
    engine.launch = *launch;
    engine.fault = fault;
    engine.random = launch->seed;
    host_block_size = launch->block;
    host_grid_size = launch->grid;
    fault->message[0] = 0;
    if (!check_launch()) return 1;
    sanitized_main(engine.main.sanitized, tell_running);
    int n = launch->grid.x * launch->grid.y * launch->grid.z, together = launch->cooperative ? n : 1;
    int* order = order_of_blocks(n);
    catch_signals(true);
    for (int first = 0; first < n && !fault->message[0]; first += together) run_blocks(order + first, together);
    catch_signals(false);
    unmap_stacks();
    sync_acquire(&engine.exits);
    free(order);
    return fault->message[0] != 0;
}
