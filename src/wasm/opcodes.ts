/** WebAssembly's value types and instructions by their names in the text format. Core specification 2.0, 5.4, and tail calls. */

export const ValueType = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b } as const;
export type ValueType = keyof typeof ValueType;

/** A plain instruction: its code (0xFDxx for SIMD, 0xFCxx for saturating truncation), operand types and result type. */
export interface Operation {
  name: string;
  code: number;
  operands: readonly ValueType[];
  result: ValueType;
  /** Bytes an access touches, for loads and stores: an offset follows the code. */
  bytes?: number;
  /** How many lanes there are, for lane access: a lane's number follows the code. */
  lanes?: number;
}

const table = new Map<string, Operation>();
const add = (name: string, code: number, operands: ValueType[], result: ValueType, bytes?: number): void => {
  table.set(name, bytes === undefined ? { name, code, operands, result } : { name, code, operands, result, bytes });
};
const LANES: Record<string, number> = { i8x16: 16, i16x8: 8, i32x4: 4, i64x2: 2, f32x4: 4, f64x2: 2 };

const comparisons = ['eq', 'ne', 'lt_s', 'lt_u', 'gt_s', 'gt_u', 'le_s', 'le_u', 'ge_s', 'ge_u'];
const integerUnary = ['clz', 'ctz', 'popcnt'];
const integerBinary = ['add', 'sub', 'mul', 'div_s', 'div_u', 'rem_s', 'rem_u', 'and', 'or', 'xor', 'shl', 'shr_s', 'shr_u', 'rotl', 'rotr'];
const floatUnary = ['abs', 'neg', 'ceil', 'floor', 'trunc', 'nearest', 'sqrt'];
const floatBinary = ['add', 'sub', 'mul', 'div', 'min', 'max', 'copysign'];
for (const [type, eqz, unary] of [
  ['i32', 0x45, 0x67],
  ['i64', 0x50, 0x79],
] as const) {
  add(`${type}.eqz`, eqz, [type], 'i32');
  comparisons.forEach((name, i) => add(`${type}.${name}`, eqz + 1 + i, [type, type], 'i32'));
  integerUnary.forEach((name, i) => add(`${type}.${name}`, unary + i, [type], type));
  integerBinary.forEach((name, i) => add(`${type}.${name}`, unary + 3 + i, [type, type], type));
}
for (const [type, compare, unary] of [
  ['f32', 0x5b, 0x8b],
  ['f64', 0x61, 0x99],
] as const) {
  ['eq', 'ne', 'lt', 'gt', 'le', 'ge'].forEach((name, i) => add(`${type}.${name}`, compare + i, [type, type], 'i32'));
  floatUnary.forEach((name, i) => add(`${type}.${name}`, unary + i, [type], type));
  floatBinary.forEach((name, i) => add(`${type}.${name}`, unary + 7 + i, [type, type], type));
}
const conversions: [string, ValueType, ValueType][] = [
  ['wrap_i64', 'i64', 'i32'], ['trunc_f32_s', 'f32', 'i32'], ['trunc_f32_u', 'f32', 'i32'], ['trunc_f64_s', 'f64', 'i32'], ['trunc_f64_u', 'f64', 'i32'],
  ['extend_i32_s', 'i32', 'i64'], ['extend_i32_u', 'i32', 'i64'], ['trunc_f32_s', 'f32', 'i64'], ['trunc_f32_u', 'f32', 'i64'], ['trunc_f64_s', 'f64', 'i64'], ['trunc_f64_u', 'f64', 'i64'],
  ['convert_i32_s', 'i32', 'f32'], ['convert_i32_u', 'i32', 'f32'], ['convert_i64_s', 'i64', 'f32'], ['convert_i64_u', 'i64', 'f32'], ['demote_f64', 'f64', 'f32'],
  ['convert_i32_s', 'i32', 'f64'], ['convert_i32_u', 'i32', 'f64'], ['convert_i64_s', 'i64', 'f64'], ['convert_i64_u', 'i64', 'f64'], ['promote_f32', 'f32', 'f64'],
  ['reinterpret_f32', 'f32', 'i32'], ['reinterpret_f64', 'f64', 'i64'], ['reinterpret_i32', 'i32', 'f32'], ['reinterpret_i64', 'i64', 'f64'],
  ['extend8_s', 'i32', 'i32'], ['extend16_s', 'i32', 'i32'], ['extend8_s', 'i64', 'i64'], ['extend16_s', 'i64', 'i64'], ['extend32_s', 'i64', 'i64'],
]; // biome-ignore format: a table
conversions.forEach(([name, from, to], i) => {
  add(`${to}.${name}`, 0xa7 + i, [from], to);
});
const saturating: [string, ValueType, ValueType][] = [
  ['trunc_sat_f32_s', 'f32', 'i32'], ['trunc_sat_f32_u', 'f32', 'i32'], ['trunc_sat_f64_s', 'f64', 'i32'], ['trunc_sat_f64_u', 'f64', 'i32'],
  ['trunc_sat_f32_s', 'f32', 'i64'], ['trunc_sat_f32_u', 'f32', 'i64'], ['trunc_sat_f64_s', 'f64', 'i64'], ['trunc_sat_f64_u', 'f64', 'i64'],
]; // biome-ignore format: a table
saturating.forEach(([name, from, to], i) => {
  add(`${to}.${name}`, 0xfc00 + i, [from], to);
});

const loads: [string, ValueType, number][] = [
  ['i32.load', 'i32', 4], ['i64.load', 'i64', 8], ['f32.load', 'f32', 4], ['f64.load', 'f64', 8], ['i32.load8_s', 'i32', 1], ['i32.load8_u', 'i32', 1], ['i32.load16_s', 'i32', 2],
  ['i32.load16_u', 'i32', 2], ['i64.load8_s', 'i64', 1], ['i64.load8_u', 'i64', 1], ['i64.load16_s', 'i64', 2], ['i64.load16_u', 'i64', 2], ['i64.load32_s', 'i64', 4], ['i64.load32_u', 'i64', 4],
]; // biome-ignore format: a table
loads.forEach(([name, type, bytes], i) => {
  add(name, 0x28 + i, ['i32'], type, bytes);
});
const stores: [string, ValueType, number][] = [
  ['i32.store', 'i32', 4], ['i64.store', 'i64', 8], ['f32.store', 'f32', 4], ['f64.store', 'f64', 8], ['i32.store8', 'i32', 1], ['i32.store16', 'i32', 2],
  ['i64.store8', 'i64', 1], ['i64.store16', 'i64', 2], ['i64.store32', 'i64', 4],
]; // biome-ignore format: a table
stores.forEach(([name, type, bytes], i) => {
  add(name, 0x36 + i, ['i32', type], type, bytes);
});
add('v128.load', 0xfd00, ['i32'], 'v128', 16);
add('v128.load64_zero', 0xfd5d, ['i32'], 'v128', 8);
add('v128.load32_zero', 0xfd5c, ['i32'], 'v128', 4);
add('v128.store', 0xfd0b, ['i32', 'v128'], 'v128', 16);

// SIMD: unary and binary operations by code.
const vector = (code: number, operands: number, ...names: string[]): void =>
  names.forEach((name, i) => {
    if (name) add(name, 0xfd00 + code + i, Array<ValueType>(operands).fill('v128'), 'v128');
  });
const shapes = (shape: string, ...names: string[]): string[] => names.map((name) => (name ? `${shape}.${name}` : ''));
vector(0x0e, 2, 'i8x16.swizzle');
(['i8x16', 'i16x8', 'i32x4', 'i64x2', 'f32x4', 'f64x2'] as const).forEach((shape, i) => {
  add(`${shape}.splat`, 0xfd0f + i, [(['i32', 'i32', 'i32', 'i64', 'f32', 'f64'] as const)[i]], 'v128');
});
for (const [i, shape] of ['i8x16', 'i16x8', 'i32x4'].entries()) vector(0x23 + 10 * i, 2, ...shapes(shape, ...comparisons));
vector(0x41, 2, ...shapes('f32x4', 'eq', 'ne', 'lt', 'gt', 'le', 'ge'), ...shapes('f64x2', 'eq', 'ne', 'lt', 'gt', 'le', 'ge'));
vector(0x4d, 1, 'v128.not');
vector(0x4e, 2, 'v128.and', 'v128.andnot', 'v128.or', 'v128.xor');
vector(0x52, 3, 'v128.bitselect');
add('v128.any_true', 0xfd53, ['v128'], 'i32');
vector(0x5e, 1, 'f32x4.demote_f64x2_zero', 'f64x2.promote_low_f32x4');
const shifts = (shape: string, code: number): void =>
  ['shl', 'shr_s', 'shr_u'].forEach((name, i) => {
    add(`${shape}.${name}`, 0xfd00 + code + i, ['v128', 'i32'], 'v128');
  });
(['i8x16', 'i16x8', 'i32x4', 'i64x2'] as const).forEach((shape, i) => {
  const base = 0x60 + 0x20 * i;
  vector(base, 1, `${shape}.abs`, `${shape}.neg`);
  add(`${shape}.all_true`, 0xfd00 + base + 3, ['v128'], 'i32');
  add(`${shape}.bitmask`, 0xfd00 + base + 4, ['v128'], 'i32');
  shifts(shape, base + 0xb);
  if (shape === 'i8x16' || shape === 'i16x8') {
    vector(base + 5, 2, ...shapes(shape, `narrow_${shape === 'i8x16' ? 'i16x8' : 'i32x4'}_s`, `narrow_${shape === 'i8x16' ? 'i16x8' : 'i32x4'}_u`));
    vector(base + 0xe, 2, ...shapes(shape, 'add', 'add_sat_s', 'add_sat_u', 'sub', 'sub_sat_s', 'sub_sat_u'));
    vector(base + 0x1b, 2, `${shape}.avgr_u`);
  } else vector(base + 0xe, 2, `${shape}.add`, '', '', `${shape}.sub`);
  if (shape !== 'i8x16') vector(base + 0x15, 2, `${shape}.mul`);
  if (shape !== 'i64x2') vector(base + 0x16, 2, ...shapes(shape, 'min_s', 'min_u', 'max_s', 'max_u'));
  if (shape !== 'i8x16') {
    const from = { i16x8: 'i8x16', i32x4: 'i16x8', i64x2: 'i32x4' }[shape];
    vector(base + 7, 1, ...shapes(shape, `extend_low_${from}_s`, `extend_high_${from}_s`, `extend_low_${from}_u`, `extend_high_${from}_u`));
    vector(base + 0x1c, 2, ...shapes(shape, `extmul_low_${from}_s`, `extmul_high_${from}_s`, `extmul_low_${from}_u`, `extmul_high_${from}_u`));
  }
});
vector(0x62, 1, 'i8x16.popcnt');
vector(0x82, 2, 'i16x8.q15mulr_sat_s');
vector(0xba, 2, 'i32x4.dot_i16x8_s');
vector(0xd6, 2, ...shapes('i64x2', 'eq', 'ne', 'lt_s', 'gt_s', 'le_s', 'ge_s'));
vector(0x67, 1, ...shapes('f32x4', 'ceil', 'floor', 'trunc', 'nearest'));
vector(0x74, 1, ...shapes('f64x2', 'ceil', 'floor'));
vector(0x7a, 1, 'f64x2.trunc');
vector(0x94, 1, 'f64x2.nearest');
for (const [shape, base] of [['f32x4', 0xe0], ['f64x2', 0xec]] as const) {
  vector(base, 1, ...shapes(shape, 'abs', 'neg'));
  vector(base + 3, 1, `${shape}.sqrt`);
  vector(base + 4, 2, ...shapes(shape, 'add', 'sub', 'mul', 'div', 'min', 'max', 'pmin', 'pmax'));
}
vector(0xf8, 1, 'i32x4.trunc_sat_f32x4_s', 'i32x4.trunc_sat_f32x4_u', 'f32x4.convert_i32x4_s', 'f32x4.convert_i32x4_u', 'i32x4.trunc_sat_f64x2_s_zero', 'i32x4.trunc_sat_f64x2_u_zero', 'f64x2.convert_low_i32x4_s', 'f64x2.convert_low_i32x4_u');

/** Lane access: the lane's number follows the code. */
const lanes: [string, number, ValueType[], ValueType][] = [
  ['i8x16.extract_lane_s', 0x15, ['v128'], 'i32'], ['i8x16.extract_lane_u', 0x16, ['v128'], 'i32'], ['i8x16.replace_lane', 0x17, ['v128', 'i32'], 'v128'],
  ['i16x8.extract_lane_s', 0x18, ['v128'], 'i32'], ['i16x8.extract_lane_u', 0x19, ['v128'], 'i32'], ['i16x8.replace_lane', 0x1a, ['v128', 'i32'], 'v128'],
  ['i32x4.extract_lane', 0x1b, ['v128'], 'i32'], ['i32x4.replace_lane', 0x1c, ['v128', 'i32'], 'v128'],
  ['i64x2.extract_lane', 0x1d, ['v128'], 'i64'], ['i64x2.replace_lane', 0x1e, ['v128', 'i64'], 'v128'],
  ['f32x4.extract_lane', 0x1f, ['v128'], 'f32'], ['f32x4.replace_lane', 0x20, ['v128', 'f32'], 'v128'],
  ['f64x2.extract_lane', 0x21, ['v128'], 'f64'], ['f64x2.replace_lane', 0x22, ['v128', 'f64'], 'v128'],
]; // biome-ignore format: a table
for (const [name, code, operands, result] of lanes) table.set(name, { name, code: 0xfd00 + code, operands, result, lanes: LANES[name.split('.')[0]] });

/** Looks an instruction up by name; an unknown name is a mistake in our code. */
export function operation(name: string): Operation {
  const found = table.get(name);
  if (!found) throw new Error(`no such WebAssembly instruction: ${name}`);
  return found;
}

let byCode: Map<number, Operation> | undefined;
/** The instruction with this code, if it is one of these. */
export function operationWithCode(code: number): Operation | undefined {
  byCode ??= new Map(Array.from(table.values(), (found) => [found.code, found]));
  return byCode.get(code);
}

/** All instructions. */
export const operations = (): Iterable<Operation> => table.values();
