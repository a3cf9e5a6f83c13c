/**
 * A C program of some thousand lines for compilers to work on: functions of integer, floating-point, table and text work without
 * undefined behaviour, each of which prints what it computed. The same seed gives the same program.
 */

const INTEGERS = ['u8', 'u16', 'u32', 'u64', 's32', 's64'] as const;

export function generateProgram(seed: number, functions: number): string {
  let state = seed >>> 0;
  const below = (limit: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
  const pick = <Value>(values: readonly Value[]): Value => values[below(values.length)];

  /** Of unsigned 64-bit variables a to d; shifts and divisors stay in range. */
  const integer = (depth: number): string => {
    if (depth === 0) return pick(['a', 'b', 'c', 'd', `${below(65536)}u`, `0x${(below(2 ** 31) * 2 + 1).toString(16)}ull`]);
    const [left, right] = [integer(depth - 1), integer(depth - 1)];
    const operation = pick(['+', '-', '*', '&', '|', '^', '<<', '>>', '/', '%', '<', '==', '?', 'cast', 'rotate']);
    switch (operation) {
      case '<<':
      case '>>':
        return `((u64)(${left}) ${operation} ((${right}) & 63))`;
      case '/':
      case '%':
        return `((${left}) ${operation} ((${right}) | 1))`;
      case '<':
      case '==':
        return `(u64)((${left}) ${operation} (${right}))`;
      case '?':
        return `((${left}) & 1 ? (${right}) : (${integer(depth - 1)}))`;
      case 'cast':
        return `(u64)(${pick(INTEGERS)})(${left})`;
      case 'rotate':
        return `rotate(${left}, ${below(64)})`;
      default:
        return `((${left}) ${operation} (${right}))`;
    }
  };
  /** Of doubles x and y; values stay finite. */
  const real = (depth: number): string => {
    if (depth === 0) return pick(['x', 'y', `${below(1000)}.${below(1000)}`, '(double)(int)(a & 0xffff)']);
    const [left, right] = [real(depth - 1), real(depth - 1)];
    return pick([
      `(${left} + ${right})`,
      `(${left} - ${right})`,
      `tame(${left} * ${right})`,
      `tame(${left} / (1.0 + fabs(${right})))`,
      `sqrt(fabs(${left}))`,
      `(double)(float)${left}`,
      `floor(${left})`,
    ]);
  };

  const body = (index: number): string[] => {
    const lines = [`static u64 work${index}(u64 a, u64 b, double x)`, '{', '  u64 c = a ^ b, d = 1, table[32];', '  double y = 0.5;', '  int i;'];
    lines.push(`  for (i = 0; i < 32; i++) table[i] = a * i + ${below(1000)};`);
    for (let count = 4 + below(5); count > 0; count--) {
      switch (below(6)) {
        case 0:
          lines.push(`  for (i = 0; i < ${2 + below(30)}; i++) {`, `    a = ${integer(2)};`, `    table[a & 31] ^= ${integer(1)} + i;`, '  }');
          break;
        case 1:
          lines.push(`  switch (${integer(1)} % ${3 + below(5)}) {`);
          for (let i = 0; i < 3 + below(3); i++) lines.push(`  case ${i}:`, `    ${pick(['a', 'b', 'c', 'd'])} = ${integer(2)};`, '    break;');
          lines.push('  default:', `    x = ${real(2)};`, '  }');
          break;
        case 2:
          lines.push(`  if (${integer(1)} > ${integer(1)})`, `    b = ${integer(2)};`, '  else', `    y = ${real(2)};`);
          break;
        case 3:
          lines.push(`  x = tame(${real(3)});`);
          break;
        case 4:
          lines.push(`  c = table[${integer(1)} & 31] + ${integer(2)};`);
          break;
        default:
          lines.push(index > 0 ? `  d ^= work${below(index)}(${integer(1)} & 0xffff, c, y);` : `  d += ${integer(2)};`);
      }
    }
    lines.push('  for (i = 0; i < 32; i++) d = rotate(d, 7) ^ table[i];', '  return d + a + b + c + bits(x) + bits(y);', '}', '');
    return lines;
  };

  const lines = [
    '#include <math.h>',
    '#include <stdint.h>',
    '#include <stdio.h>',
    '#include <string.h>',
    'typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64; typedef int32_t s32; typedef int64_t s64;',
    'static u64 rotate(u64 value, int by) { return by ? value << by | value >> (64 - by) : value; }',
    'static u64 bits(double value) { u64 result; memcpy(&result, &value, 8); return result; }',
    'static double tame(double value) { return fabs(value) < 1e15 ? value : 1.0; }',
    '',
  ];
  // A function that calls others calls few, and only those before it: the depth of calls grows with their logarithm.
  for (let index = 0; index < functions; index++) lines.push(...body(index));
  lines.push('int main(void)', '{');
  for (let index = 0; index < functions; index++) {
    lines.push(`  printf("work${index} %016llx\\n", (unsigned long long)work${index}(${below(2 ** 31)}u, ${below(2 ** 31)}u, ${below(100)}.25));`);
  }
  lines.push('  return 0;', '}', '');
  return lines.join('\n');
}
