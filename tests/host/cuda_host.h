// CUDA's language for a CPU compiler: put before the text of a kernel, which then runs one fiber a thread (engine.cpp).
// Only what the project's kernels may use is here: static __shared__ arrays and float atomics are compile errors.
#pragma once
#include <math.h>
#include <stdio.h>

#include "engine.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

#define SHARED_MEMORY(name) unsigned char* name = host_shared()
#define RED_ZONE HOST_RED_ZONE
#define GUARD(start, bytes) host_guard(start, bytes)

#define threadIdx (host_index->thread)
#define blockIdx (host_index->block)
#define blockDim host_block_size
#define gridDim host_grid_size
constexpr int warpSize = 32;

#define HOST_LINE int line = __builtin_LINE()  // of the caller
#define HOST_INLINE static inline __attribute__((always_inline))

// ---- vectors
#define HOST_VECTORS(T, name, size)                                         \
    struct alignas(2 * size) name##2 { T x, y; };                           \
    struct name##3 { T x, y, z; };                                          \
    struct alignas(size == 8 ? 16 : 4 * size) name##4 { T x, y, z, w; };    \
    HOST_INLINE name##2 make_##name##2(T x, T y) { return {x, y}; }         \
    HOST_INLINE name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
    HOST_INLINE name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
HOST_VECTORS(float, float, 4)
HOST_VECTORS(double, double, 8)
HOST_VECTORS(int, int, 4)
HOST_VECTORS(unsigned, uint, 4)
HOST_VECTORS(unsigned char, uchar, 1)
HOST_VECTORS(unsigned short, ushort, 2)
HOST_VECTORS(long long, longlong, 8)
HOST_VECTORS(unsigned long long, ulonglong, 8)

// ---- barriers, fences
HOST_INLINE void __syncthreads(HOST_LINE) { host_barrier(BARRIER, 0, line); }
HOST_INLINE int __syncthreads_count(int p, HOST_LINE) { return host_barrier(BARRIER_COUNT, p != 0, line); }
HOST_INLINE int __syncthreads_and(int p, HOST_LINE) { return host_barrier(BARRIER_AND, p != 0, line); }
HOST_INLINE int __syncthreads_or(int p, HOST_LINE) { return host_barrier(BARRIER_OR, p != 0, line); }
HOST_INLINE void __syncwarp(unsigned mask = ~0u, HOST_LINE) { host_warp(SYNC_WARP, mask, 0, 0, 32, line); }
HOST_INLINE void __threadfence(HOST_LINE) { host_fence(1, line); }
HOST_INLINE void __threadfence_block(HOST_LINE) { host_fence(0, line); }
HOST_INLINE void __trap() { __builtin_trap(); }
HOST_INLINE void __nanosleep(unsigned, HOST_LINE) { host_yield(line); }

// ---- warp collectives: values of 4 or 8 bytes travel as 64 bits
template <class To, class From>
HOST_INLINE To host_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    return __builtin_bit_cast(To, from);
}
template <class T>
HOST_INLINE unsigned long long host_widen(T value) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    if constexpr (sizeof(T) == 4)
        return host_bits<unsigned>(value);
    else
        return host_bits<unsigned long long>(value);
}
template <class T>
HOST_INLINE T host_narrow(unsigned long long bits) {
    if constexpr (sizeof(T) == 4)
        return host_bits<T>(unsigned(bits));
    else
        return host_bits<T>(bits);
}
#define HOST_SHUFFLE(name, op)                                                           \
    template <class T>                                                                   \
    HOST_INLINE T name(unsigned mask, T value, int arg, int width = 32, HOST_LINE) {     \
        return host_narrow<T>(host_warp(op, mask, host_widen(value), arg, width, line)); \
    }
HOST_SHUFFLE(__shfl_sync, SHUFFLE)
HOST_SHUFFLE(__shfl_xor_sync, SHUFFLE_XOR)
HOST_SHUFFLE(__shfl_down_sync, SHUFFLE_DOWN)
HOST_SHUFFLE(__shfl_up_sync, SHUFFLE_UP)
HOST_INLINE unsigned __ballot_sync(unsigned mask, int p, HOST_LINE) {
    return unsigned(host_warp(BALLOT, mask, p != 0, 0, 32, line));
}
HOST_INLINE int __any_sync(unsigned mask, int p, HOST_LINE) { return __ballot_sync(mask, p, line) != 0; }
HOST_INLINE int __all_sync(unsigned mask, int p, HOST_LINE) { return __ballot_sync(mask, p, line) == mask; }

// ---- atomics: relaxed, as on the device, so that ThreadSanitizer asks for the fences that publish other data
#ifdef __SANITIZE_THREAD__
#define HOST_ATOMIC(p) host_atomic(p)
#else
#define HOST_ATOMIC(p) (void)0
#endif
#define HOST_FETCH(T, name, builtin)            \
    HOST_INLINE T name(T* p, T v) {             \
        HOST_ATOMIC(p);                         \
        return builtin(p, v, __ATOMIC_RELAXED); \
    }
#define HOST_ATOMICS(T)                                                                     \
    HOST_FETCH(T, atomicAdd, __atomic_fetch_add)                                            \
    HOST_FETCH(T, atomicOr, __atomic_fetch_or)                                              \
    HOST_FETCH(T, atomicAnd, __atomic_fetch_and)                                            \
    HOST_FETCH(T, atomicXor, __atomic_fetch_xor)                                            \
    HOST_FETCH(T, atomicExch, __atomic_exchange_n)                                          \
    HOST_INLINE T atomicCAS(T* p, T old, T v) {                                             \
        HOST_ATOMIC(p);                                                                     \
        __atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); \
        return old;                                                                         \
    }                                                                                       \
    HOST_INLINE T atomicMax(T* p, T v) {                                                    \
        T old = __atomic_load_n(p, __ATOMIC_RELAXED), seen = old;                           \
        while (old < v && (old = atomicCAS(p, seen, v)) != seen) seen = old;                \
        return old;                                                                         \
    }                                                                                       \
    HOST_INLINE T atomicMin(T* p, T v) {                                                    \
        T old = __atomic_load_n(p, __ATOMIC_RELAXED), seen = old;                           \
        while (v < old && (old = atomicCAS(p, seen, v)) != seen) seen = old;                \
        return old;                                                                         \
    }
HOST_ATOMICS(int)
HOST_ATOMICS(unsigned)
HOST_ATOMICS(unsigned long long)
HOST_FETCH(int, atomicSub, __atomic_fetch_sub)
HOST_FETCH(unsigned, atomicSub, __atomic_fetch_sub)

// ---- integers
HOST_INLINE int __popc(unsigned x) { return __builtin_popcount(x); }
HOST_INLINE int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
HOST_INLINE int __ffs(int x) { return __builtin_ffs(x); }
HOST_INLINE int __ffsll(long long x) { return __builtin_ffsll(x); }
HOST_INLINE int __clz(int x) { return x ? __builtin_clz(x) : 32; }
HOST_INLINE int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
HOST_INLINE unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; i++) reversed |= (x >> i & 1) << (31 - i);
    return reversed;
}
HOST_INLINE unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }
HOST_INLINE int __mulhi(int a, int b) { return int((long long)a * b >> 32); }
HOST_INLINE unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
HOST_INLINE unsigned __funnelshift_l(unsigned low, unsigned high, unsigned n) {
    return unsigned(((unsigned long long)high << 32 | low) << (n & 31) >> 32);
}
HOST_INLINE unsigned __funnelshift_r(unsigned low, unsigned high, unsigned n) {
    return unsigned(((unsigned long long)high << 32 | low) >> (n & 31));
}

#define __expf expf  // glibc declares functions of these names
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __log10f log10f
#define __sinf sinf
#define __cosf cosf
#define __powf powf

// ---- floats: CUDA's own names, and its overloads for float and double
HOST_INLINE unsigned __float_as_uint(float x) { return host_bits<unsigned>(x); }
HOST_INLINE int __float_as_int(float x) { return host_bits<int>(x); }
HOST_INLINE float __uint_as_float(unsigned x) { return host_bits<float>(x); }
HOST_INLINE float __int_as_float(int x) { return host_bits<float>(x); }
HOST_INLINE long long __double_as_longlong(double x) { return host_bits<long long>(x); }
HOST_INLINE double __longlong_as_double(long long x) { return host_bits<double>(x); }
HOST_INLINE float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
HOST_INLINE double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
// The noinline functions keep their one operation from being contracted with another, as the _rn names promise.
__attribute__((noinline, unused)) static float __fadd_rn(float a, float b) { return a + b; }
__attribute__((noinline, unused)) static float __fsub_rn(float a, float b) { return a - b; }
__attribute__((noinline, unused)) static float __fmul_rn(float a, float b) { return a * b; }
__attribute__((noinline, unused)) static double __dadd_rn(double a, double b) { return a + b; }
__attribute__((noinline, unused)) static double __dsub_rn(double a, double b) { return a - b; }
__attribute__((noinline, unused)) static double __dmul_rn(double a, double b) { return a * b; }
HOST_INLINE float __fdiv_rn(float a, float b) { return a / b; }
HOST_INLINE float __frcp_rn(float x) { return 1 / x; }
HOST_INLINE float __fsqrt_rn(float x) { return sqrtf(x); }
HOST_INLINE float __fdividef(float a, float b) { return a / b; }
HOST_INLINE float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
HOST_INLINE float rsqrtf(float x) { return 1 / sqrtf(x); }
HOST_INLINE double rsqrt(double x) { return 1 / sqrt(x); }
HOST_INLINE int __float2int_rn(float x) { return int(rintf(x)); }
HOST_INLINE int __float2int_rz(float x) { return int(x); }
HOST_INLINE int __float2int_rd(float x) { return int(floorf(x)); }
HOST_INLINE float __int2float_rn(int x) { return float(x); }
HOST_INLINE float __uint2float_rn(unsigned x) { return float(x); }
HOST_INLINE float __double2float_rn(double x) { return float(x); }

#define HOST_MIN_MAX(T)                                   \
    HOST_INLINE T min(T a, T b) { return b < a ? b : a; } \
    HOST_INLINE T max(T a, T b) { return a < b ? b : a; }
HOST_MIN_MAX(int)
HOST_MIN_MAX(unsigned)
HOST_MIN_MAX(long long)
HOST_MIN_MAX(unsigned long long)
HOST_INLINE float min(float a, float b) { return fminf(a, b); }
HOST_INLINE float max(float a, float b) { return fmaxf(a, b); }
HOST_INLINE double min(double a, double b) { return fmin(a, b); }
HOST_INLINE double max(double a, double b) { return fmax(a, b); }

// ---- cache hints
#define HOST_LOAD(name)              \
    template <class T>               \
    HOST_INLINE T name(const T* p) { \
        return *p;                   \
    }
HOST_LOAD(__ldg)
HOST_LOAD(__ldcg)
HOST_LOAD(__ldcs)
HOST_LOAD(__ldca)
template <class T>
HOST_INLINE void __stcs(T* p, T value) {
    *p = value;
}
template <class T>
HOST_INLINE void __stcg(T* p, T value) {
    *p = value;
}

// ---- the entry: arguments come as cuLaunchKernel takes them, one pointer to each value
template <class T>
constexpr char host_kind() {
    if constexpr (__is_same(T, void) || __is_class(T))
        return 's';
    else if constexpr (__is_same(T, bool))
        return 'i';
    else
        return T(0.5f) == T(0) ? 'i' : 'f';
}
template <class T>
constexpr int host_size() {
    if constexpr (__is_same(T, void))
        return 1;
    else
        return sizeof(T);
}
template <class T>
struct HostTraits {
    static constexpr HostParameter value = {host_size<T>(), 0, 0, host_kind<T>()};
};
template <class T>
struct HostTraits<T*> {
    static constexpr HostParameter value = {host_size<T>(), 1, 0, host_kind<T>()};
};
template <class T>
struct HostTraits<const T*> {
    static constexpr HostParameter value = {host_size<T>(), 1, 1, host_kind<T>()};
};
template <int... I>
struct HostIndices {};
template <int N, int... I>
struct HostCount : HostCount<N - 1, N - 1, I...> {};
template <int... I>
struct HostCount<0, I...> {
    typedef HostIndices<I...> type;
};
template <class... A>
struct HostKernel {
    static int describe(void (*)(A...), HostParameter* out) {
        const HostParameter all[] = {HostTraits<A>::value..., HostParameter()};
        for (unsigned i = 0; i < sizeof...(A); i++) out[i] = all[i];
        return sizeof...(A);
    }
    template <int... I>
    static void call(void (*kernel)(A...), void** args, HostIndices<I...>) {
        kernel(*static_cast<A*>(args[I])...);
    }
};
template <class... A>
int host_describe(void (*kernel)(A...), HostParameter* out) {
    return HostKernel<A...>::describe(kernel, out);
}
template <class... A>
void host_call(void (*kernel)(A...), void** args) {
    HostKernel<A...>::call(kernel, args, typename HostCount<sizeof...(A)>::type());
}
// Put behind the kernel's text, with its name.
#define HOST_ENTRY(name)                                                                    \
    static void host_entry(void** args) { host_call(name, args); }                          \
    extern "C" int host_parameters(HostParameter* out) { return host_describe(name, out); } \
    extern "C" int host_run(void** args, const HostLaunch* launch, HostFault* fault) {      \
        return host_launch(host_entry, args, launch, fault);                                \
    }
