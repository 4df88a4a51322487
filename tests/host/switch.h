// Contexts of fibers: a few instructions on x86-64, ucontext elsewhere.
#pragma once
#include <stddef.h>

#if defined(__x86_64__) && !defined(HOST_UCONTEXT)

struct Context {
    void* stack_pointer;
};

extern "C" void host_switch(void** from, void* to);

// The registers a function has to preserve go on the stack that is left, and come from the one that is entered.
asm(R"(
.text
.type host_switch,@function
.hidden host_switch
.globl host_switch
host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

inline void context_make(Context& context, char* stack, size_t bytes, void (*entry)()) {
    void** top = reinterpret_cast<void**>(stack + bytes);  // 16-aligned; entry finds it as after a call
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    context.stack_pointer = top;
}

inline void context_switch(Context& from, Context& to) { host_switch(&from.stack_pointer, to.stack_pointer); }

#else
#include <ucontext.h>

typedef ucontext_t Context;

inline void context_make(Context& context, char* stack, size_t bytes, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}

inline void context_switch(Context& from, Context& to) { swapcontext(&from, &to); }

#endif
