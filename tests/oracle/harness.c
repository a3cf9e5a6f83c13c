// Runs single user-mode instructions on this processor and records what they leave behind.
// A signal handler is the driver: each trap (INT3 behind the instruction, a single step, or a fault) delivers the whole
// state after the case that ran; the handler notes the differences, writes the next case's state into the same signal
// frame and returns into it. The layout of the input and output files is described in native.ts.
// Limits: x86-64 Linux; cases must not make system calls or leave an address range mapped here other than the windows.

#define _GNU_SOURCE
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#define REGISTERS 72
enum { RIP = 16, RFLAGS, MXCSR, FCW, FSW, FTW, SIGNIFICAND, EXPONENT = 30, XMM = 38, FS_BASE = 70, GS_BASE };

#define STATUS_FLAGS 0x8d5u
#define LOADABLE_FLAGS (STATUS_FLAGS | 0x400u | 0x40000u) // and DF, AC
#define TRAP_FLAG 0x100u
#define RESUME_FLAG 0x10000u

enum { STEP = 1 }; // flags of a case

struct window { uint64_t address, size, writable, executable; };
struct file_header { uint32_t magic, windows, cases, memory_size; };
struct case_header { uint32_t flags, code_offset, code_size, overrides; uint8_t code[16]; uint64_t registers[REGISTERS]; };
struct word { uint64_t index, value; };
struct outcome_header { int32_t vector; uint32_t error_code; uint64_t address; uint64_t registers[REGISTERS]; uint64_t changes; };

static const uint8_t *input;         // at the next case
static uint8_t *output;              // where its outcome goes
static uint64_t *image, *before;     // memory as the case sees it (an alias of the windows), and as it was handed to it
static const uint64_t *baseline;
static uint32_t memory_size, cases;
static uint32_t next_case;           // the running one is next_case - 1
static const struct case_header *running;
static uint64_t code_address;
static uint64_t own_fs_base, own_gs_base;
static gregset_t own_registers;
static uint8_t own_fpu[512];

static int arch_prctl_raw(int code, uint64_t value) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_arch_prctl), "D"((long)code), "S"(value) : "rcx", "r11", "memory");
  return (int)result;
}

static uint64_t get_base(int code) {
  uint64_t value = 0;
  arch_prctl_raw(code, (uint64_t)&value);
  return value;
}

// Index in the signal context's array for each encoding of a general register.
static const int gregs[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static uint64_t load(const void *from, size_t size) {
  uint64_t value = 0;
  memcpy(&value, from, size);
  return value;
}

static void capture(ucontext_t *context, uint64_t *registers) {
  const greg_t *g = context->uc_mcontext.gregs;
  const uint8_t *fpu = (const uint8_t *)context->uc_mcontext.fpregs;
  for (int i = 0; i < 16; i++) registers[i] = (uint64_t)g[gregs[i]];
  registers[RIP] = (uint64_t)g[REG_RIP];
  registers[RFLAGS] = (uint64_t)g[REG_EFL] & ~(uint64_t)(TRAP_FLAG | RESUME_FLAG);
  registers[MXCSR] = load(fpu + 24, 4);
  registers[FCW] = load(fpu, 2);
  registers[FSW] = load(fpu + 2, 2);
  registers[FTW] = fpu[4];
  unsigned top = (unsigned)registers[FSW] >> 11 & 7;
  for (unsigned i = 0; i < 8; i++) { // the frame has ST(i), we physical registers
    const uint8_t *st = fpu + 32 + 16 * ((i - top) & 7);
    registers[SIGNIFICAND + i] = load(st, 8);
    registers[EXPONENT + i] = load(st + 8, 2);
  }
  memcpy(registers + XMM, fpu + 160, 256);
  registers[FS_BASE] = get_base(ARCH_GET_FS);
  registers[GS_BASE] = get_base(ARCH_GET_GS);
}

static void establish(ucontext_t *context, const struct case_header *c) {
  greg_t *g = context->uc_mcontext.gregs;
  uint8_t *fpu = (uint8_t *)context->uc_mcontext.fpregs;
  const uint64_t *registers = c->registers;
  for (int i = 0; i < 16; i++) g[gregs[i]] = (greg_t)registers[i];
  g[REG_RIP] = (greg_t)(code_address + c->code_offset);
  g[REG_EFL] = (greg_t)((registers[RFLAGS] & LOADABLE_FLAGS) | 0x202 | (c->flags & STEP ? TRAP_FLAG : 0));
  memcpy(fpu, &registers[FCW], 2);
  memcpy(fpu + 2, &registers[FSW], 2);
  fpu[4] = (uint8_t)registers[FTW];
  fpu[5] = 0;
  memset(fpu + 6, 0, 18); // FOP, FIP, FDP
  memcpy(fpu + 24, &registers[MXCSR], 4);
  unsigned top = (unsigned)registers[FSW] >> 11 & 7;
  for (unsigned i = 0; i < 8; i++) {
    uint8_t *st = fpu + 32 + 16 * ((i - top) & 7);
    memcpy(st, &registers[SIGNIFICAND + i], 8);
    memcpy(st + 8, &registers[EXPONENT + i], 2);
  }
  memcpy(fpu + 160, registers + XMM, 256);
  if (load(fpu + 464, 4) == 0x46505853) fpu[512] |= 3; // an XSAVE frame: restore x87 and SSE from it, not their initial state
  arch_prctl_raw(ARCH_SET_FS, registers[FS_BASE]);
  arch_prctl_raw(ARCH_SET_GS, registers[GS_BASE]);
}

__attribute__((used)) static void on_signal(int signal, siginfo_t *info, ucontext_t *context) {
  (void)info;
  if (!running && next_case == 0) {
    memcpy(own_registers, context->uc_mcontext.gregs, sizeof own_registers);
    memcpy(own_fpu, context->uc_mcontext.fpregs, sizeof own_fpu);
    own_fs_base = get_base(ARCH_GET_FS);
    own_gs_base = get_base(ARCH_GET_GS);
  } else {
    const greg_t *g = context->uc_mcontext.gregs;
    struct outcome_header *out = (struct outcome_header *)output;
    capture(context, out->registers);
    int trap = (int)g[REG_TRAPNO];
    int retired = signal == SIGTRAP && trap == (running->flags & STEP ? 1 : 3);
    if (retired && !(running->flags & STEP)) out->registers[RIP]--;
    out->vector = retired ? -1 : trap;
    out->error_code = retired ? 0 : (uint32_t)g[REG_ERR];
    out->address = !retired && trap == 14 ? (uint64_t)g[REG_CR2] : 0;
    struct word *change = (struct word *)(out + 1);
    for (uint32_t i = 0; i < memory_size / 8; i++) {
      if (image[i] != before[i]) *change++ = (struct word){i, image[i]};
    }
    out->changes = (uint64_t)(change - (struct word *)(out + 1));
    output = (uint8_t *)change;
    memcpy(image, baseline, memory_size);
    memcpy(before, baseline, memory_size);
  }
  if (next_case == cases) {
    running = 0;
    memcpy(context->uc_mcontext.gregs, own_registers, sizeof own_registers);
    memcpy(context->uc_mcontext.fpregs, own_fpu, 464);
    arch_prctl_raw(ARCH_SET_FS, own_fs_base);
    arch_prctl_raw(ARCH_SET_GS, own_gs_base);
    return;
  }
  running = (const struct case_header *)input;
  next_case++;
  const struct word *override = (const struct word *)(running + 1);
  for (uint32_t i = 0; i < running->overrides; i++, override++) {
    image[override->index] = before[override->index] = override->value;
  }
  memcpy((uint8_t *)image + running->code_offset, running->code, running->code_size); // the code window comes first
  memcpy((uint8_t *)before + running->code_offset, running->code, running->code_size);
  input = (const uint8_t *)override;
  establish(context, running);
}

// AC, NT or ID left behind by a case would otherwise hold in the handler and, NT and ID, in all cases after it.
void entry(int signal, siginfo_t *info, void *context);
__asm__(".globl entry\nentry:\n  pushq $2\n  popfq\n  jmp on_signal\n");

static void on_alarm(int signal) {
  static uint32_t seen;
  static int ticks;
  (void)signal;
  if (seen != next_case) ticks = 0;
  seen = next_case;
  if (++ticks < 3) return;
  arch_prctl_raw(ARCH_SET_FS, own_fs_base);
  fprintf(stderr, "harness: case %u does not end\n", next_case - 1);
  _exit(3);
}

static void *die(const char *what) {
  fprintf(stderr, "harness: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void *check(void *pointer, const char *what) { return pointer == MAP_FAILED ? die(what) : pointer; }

int main(int argc, char **argv) {
  if (argc != 3) return fprintf(stderr, "usage: harness INPUT OUTPUT\n"), 2;
  int file = open(argv[1], O_RDONLY);
  struct stat status;
  if (file < 0 || fstat(file, &status) < 0) die(argv[1]);
  const uint8_t *start = check(mmap(0, (size_t)status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0), argv[1]);
  const struct file_header *header = (const struct file_header *)start;
  if (header->magic != 0x4c43524f) return fprintf(stderr, "harness: %s is no case file\n", argv[1]), 2;
  const struct window *windows = (const struct window *)(header + 1);
  cases = header->cases;
  memory_size = header->memory_size;
  baseline = (const uint64_t *)(windows + header->windows);
  input = (const uint8_t *)baseline + memory_size;

  int memory = memfd_create("windows", 0);
  if (memory < 0 || ftruncate(memory, memory_size) < 0) die("memfd");
  image = check(mmap(0, memory_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memory, 0), "image");
  before = malloc(memory_size);
  memcpy(image, baseline, memory_size);
  memcpy(before, baseline, memory_size);
  off_t offset = 0;
  for (uint32_t i = 0; i < header->windows; i++) {
    const struct window *w = windows + i;
    int protection = PROT_READ | (w->writable ? PROT_WRITE : 0) | (w->executable ? PROT_EXEC : 0);
    void *at = mmap((void *)w->address, w->size, protection, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, memory, offset);
    if (at != (void *)w->address) die("a window's addresses are taken");
    offset += (off_t)w->size;
  }
  code_address = windows[0].address;

  size_t capacity = (size_t)1 << 36;
  int reserved = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  uint8_t *outcomes = check(mmap(0, capacity, PROT_READ | PROT_WRITE, reserved, -1, 0), "output");
  output = outcomes;

  stack_t stack = {.ss_size = 1 << 18};
  stack.ss_sp = check(mmap(0, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "stack");
  sigaltstack(&stack, 0);
  struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK};
  action.sa_sigaction = entry;
  static const int signals[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE};
  for (int i = 0; i < 5; i++) sigaction(signals[i], &action, 0);
  struct sigaction alarm = {.sa_flags = SA_ONSTACK | SA_RESTART};
  alarm.sa_handler = on_alarm;
  sigaction(SIGALRM, &alarm, 0);
  setitimer(ITIMER_REAL, &(struct itimerval){{2, 0}, {2, 0}}, 0);

  __asm__ volatile("int3" ::: "memory"); // into the handler; comes back when all cases have run

  setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, 0);
  int result = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (result < 0) die(argv[2]);
  for (const uint8_t *from = outcomes; from < output;) {
    ssize_t written = write(result, from, (size_t)(output - from));
    if (written < 0) die(argv[2]);
    from += written;
  }
  return close(result) < 0 ? (die(argv[2]), 1) : 0;
}
