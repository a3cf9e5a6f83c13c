/**
 * The comparison of packed strings: PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM up to their intermediate result 2.
 * SDM 2B 4.1. Index, mask and flags are made from it by generated code (isa/sse4.ts).
 */

/** Length of an operand whose end is its first zero element. */
export const IMPLICIT_LENGTH = -1;
/** Above the 16 bits of the result: the first operand ends within its register (SF), the second does (ZF). */
export const FIRST_ENDS = 1 << 16;
export const SECOND_ENDS = 1 << 17;

const FORMAT_WORDS = 1;
const FORMAT_SIGNED = 2;
const AGGREGATION_RANGES = 1;
const AGGREGATION_EACH = 2;
const AGGREGATION_ORDERED = 3;
const POLARITY_NEGATIVE = 0x10;
const POLARITY_MASKED = 0x20;

/**
 * @param operands 32 bytes of memory: the first operand (the set, ranges or needle), then the second
 * @param control the immediate byte
 * @returns intermediate result 2, a bit for each element of the second operand, with FIRST_ENDS and SECOND_ENDS
 */
export function comparePackedStrings(operands: DataView, control: number, firstLength: number, secondLength: number): number {
  const bytes = control & FORMAT_WORDS ? 2 : 1;
  const elements = 16 / bytes;
  const signed = (control & FORMAT_SIGNED) !== 0;
  const element = (operand: 0 | 1, i: number): number => {
    const offset = 16 * operand + i * bytes;
    if (bytes === 2) return signed ? operands.getInt16(offset, true) : operands.getUint16(offset, true);
    return signed ? operands.getInt8(offset) : operands.getUint8(offset);
  };
  const lengthOf = (operand: 0 | 1, explicit: number): number => {
    if (explicit !== IMPLICIT_LENGTH) return Math.min(Math.abs(explicit), elements);
    let i = 0;
    while (i < elements && element(operand, i) !== 0) i++;
    return i;
  };
  const first = lengthOf(0, firstLength);
  const second = lengthOf(1, secondLength);

  const holds = (j: number): boolean => {
    switch ((control >> 2) & 3) {
      case AGGREGATION_ORDERED:
        // The needle from j on, as far as there are elements; what is past its own end matches anything.
        for (let i = 0; i < first && j + i < elements; i++)
          if (j + i >= second || element(0, i) !== element(1, j + i)) return false;
        return true;
      case AGGREGATION_EACH:
        return j < first && j < second ? element(0, j) === element(1, j) : j >= first && j >= second;
      case AGGREGATION_RANGES:
        for (let i = 0; i + 1 < first && j < second; i += 2)
          if (element(0, i) <= element(1, j) && element(1, j) <= element(0, i + 1)) return true;
        return false;
      default:
        for (let i = 0; i < first && j < second; i++) if (element(0, i) === element(1, j)) return true;
        return false;
    }
  };
  let result = 0;
  for (let j = 0; j < elements; j++) if (holds(j)) result |= 1 << j;
  if (control & POLARITY_NEGATIVE) result ^= control & POLARITY_MASKED ? (1 << second) - 1 : (1 << elements) - 1;
  return result | (first < elements ? FIRST_ENDS : 0) | (second < elements ? SECOND_ENDS : 0);
}
