// Main function of a sanitized build: one launch from a file, whose arrays are written back to it. Every array is an
// allocation of its own, so that AddressSanitizer sees the byte before it and the byte behind it.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"

extern "C" int host_run(void** args, const HostLaunch* launch, HostFault* fault);

namespace {

enum { IS_NULL = -1, IS_VALUE = -2 };

// As `replay.py` writes them, followed by the sizes of the arrays, the arguments, and the arrays' bytes.
struct Header {
    HostLaunch launch;
    int32_t n_args, n_arrays;
};

struct Argument {
    int64_t array;   // its number, or IS_NULL, IS_VALUE
    uint64_t value;  // offset into the array in bytes, or the bits of the value
};

template <class T>
T* take(FILE* file, size_t n) {
    T* values = static_cast<T*>(malloc(n * sizeof(T) + 1));
    if (!values || fread(values, sizeof(T), n, file) != n) {
        fprintf(stderr, "a truncated launch\n");
        _exit(2);
    }
    return values;
}

uint8_t** take_arrays(FILE* file, const uint64_t* bytes, int n) {
    uint8_t** arrays = static_cast<uint8_t**>(malloc((n + 1) * sizeof(uint8_t*)));
    for (int i = 0; i < n; i++) {
        void* memory = nullptr;
        if (posix_memalign(&memory, 256, bytes[i]) || fread(memory, 1, bytes[i], file) != bytes[i]) _exit(2);
        arrays[i] = static_cast<uint8_t*>(memory);
    }
    return arrays;
}

}  // namespace

int main(int, char** argv) {
    FILE* file = fopen(argv[1], "r+b");
    if (!file) return 2;
    Header* header = take<Header>(file, 1);
    int n = header->n_args;
    uint64_t* bytes = take<uint64_t>(file, header->n_arrays);
    Argument* from = take<Argument>(file, n);
    long start = ftell(file);
    uint8_t** arrays = take_arrays(file, bytes, header->n_arrays);
    void** args = static_cast<void**>(malloc((n + 1) * sizeof(void*)));
    uint64_t* values = static_cast<uint64_t*>(malloc((n + 1) * sizeof(uint64_t)));
    for (int i = 0; i < n; i++) {
        values[i] = from[i].value;
        if (from[i].array == IS_NULL) values[i] = 0;
        if (from[i].array >= 0) values[i] += reinterpret_cast<uint64_t>(arrays[from[i].array]);
        args[i] = &values[i];
    }
    HostFault fault;
    if (host_run(args, &header->launch, &fault)) {
        fwrite(&fault, sizeof(fault), 1, stdout);
        fflush(stdout);
        _exit(3);
    }
    fseek(file, start, SEEK_SET);
    for (int i = 0; i < header->n_arrays; i++) fwrite(arrays[i], 1, bytes[i], file);
    fclose(file);
    _exit(0);  // nothing to clean up that a sanitizer should look at
}
