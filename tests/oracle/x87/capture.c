/*
 * Runs x87 operations on this machine's processor: reads cases from standard input, writes what became of them.
 * A case: operation * 8 + i (u32), RFLAGS (u32), FSAVE image (120 bytes), memory operand (512 bytes).
 * An outcome: trapped signal or 0 (u32), RFLAGS (u32), FSAVE image (120 bytes), memory operand (512 bytes).
 * With the argument --names: the operations' names in order, one a line.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <xmmintrin.h>

typedef uint64_t operation(const void *in, void *memory, void *out, uint64_t rflags);
extern operation *const operation_table[];
extern const char operation_names[];

struct record {
  uint32_t selector;
  uint32_t rflags;
  uint8_t image[120]; /* padded for the alignment FXSAVE wants */
  uint8_t memory[512];
} __attribute__((aligned(64)));

static sigjmp_buf trapped;

static void on_signal(int number) { siglongjmp(trapped, number); }

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "--names")) {
    for (const char *name = operation_names; *name; name += strlen(name) + 1) puts(name);
    return 0;
  }
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_NODEFER};
  sigaction(SIGFPE, &action, NULL);
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGILL, &action, NULL);
  static struct record record, out;
  const unsigned mxcsr = _mm_getcsr();
  size_t const bytes = 8 + 120 + 512;
  while (fread(&record, bytes, 1, stdin) == 1) {
    memcpy(&out, &record, bytes);
    int const number = sigsetjmp(trapped, 0);
    if (number == 0) {
      out.rflags = operation_table[record.selector](record.image, out.memory, out.image, record.rflags);
    }
    out.selector = number;
    __asm__ volatile("fninit");
    _mm_setcsr(mxcsr);
    fwrite(&out, bytes, 1, stdout);
  }
  return 0;
}
