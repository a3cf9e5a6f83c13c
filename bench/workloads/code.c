// Working sets of code: `code REPETITIONS NAME...`, names code1 to code64 for so many MiB of functions, 64 bytes each, made here and called 4 million
// times in all, in an order that goes from page to page. Prints what bench.c prints.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { FUNCTION_BYTES = 64, CALLS = 4 << 20, STRIDE = 7919 };
typedef uint32_t function(uint32_t);

static double cpu_ms(void) { struct rusage r; getrusage(RUSAGE_SELF, &r); return (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1e3 + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e3; }
static double now_ms(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e3 + t.tv_nsec / 1e6; }

static void put32(uint8_t *p, uint32_t value) { memcpy(p, &value, 4); }

// mov eax, edi; then some arithmetic with numbers of its own, a branch, and ret
static void emit(uint8_t *p, uint32_t seed) {
    static const uint8_t code[] = {
        0x89, 0xf8,                   // mov eax, edi
        0x69, 0xc0, 0, 0, 0, 0,       // imul eax, eax, n1
        0x05, 0, 0, 0, 0,             // add eax, n2
        0x89, 0xc1,                   // mov ecx, eax
        0xc1, 0xe9, 0x0b,             // shr ecx, 11
        0x31, 0xc8,                   // xor eax, ecx
        0xa8, 0x01,                   // test al, 1
        0x74, 0x05,                   // jz +5
        0x35, 0, 0, 0, 0,             // xor eax, n3
        0x2d, 0, 0, 0, 0,             // sub eax, n4
        0xc3 };                       // ret
    memcpy(p, code, sizeof code);
    put32(p + 4, seed * 2654435761u | 1);
    put32(p + 9, seed * 40503u);
    put32(p + 25, seed ^ 0x5bd1e995);
    put32(p + 30, seed >> 3);
}

static uint32_t run(int mib) {
    size_t bytes = (size_t)mib << 20;
    uint32_t count = bytes / FUNCTION_BYTES;
    uint8_t *area = mmap(0, bytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) return 0;
    for (uint32_t i = 0; i < count; i++) emit(area + (size_t)i * FUNCTION_BYTES, i + 1);
    uint32_t value = 1, at = 0;
    for (uint32_t i = 0; i < CALLS; i++) {
        value = ((function *)(area + (size_t)at * FUNCTION_BYTES))(value);
        at = (at + STRIDE) & (count - 1);
    }
    munmap(area, bytes);
    return value;
}

int main(int argc, char **argv) {
    int reps = argc > 1 ? atoi(argv[1]) : 1;
    for (int k = 2; k < argc; k++) {
        for (int r = 0; r < reps; r++) {
            char m[96];
            int n = snprintf(m, sizeof m, "@@B %s\n", argv[k]);
            if (write(1, m, n) != n) return 1;
            double u = cpu_ms(), t = now_ms();
            uint32_t c = run(atoi(argv[k] + 4));
            t = now_ms() - t; u = cpu_ms() - u;
            n = snprintf(m, sizeof m, "@@E %s ms=%.2f cpu=%.2f chk=%08x\n", argv[k], t, u, c);
            if (write(1, m, n) != n) return 1;
        }
    }
    return 0;
}
