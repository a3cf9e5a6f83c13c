/**
 * From the bytes of a module that ModuleBuilder made back to text: the text format with its operands folded, a statement to a line. Not known: what
 * nothing here emits (typed blocks, data, tables of other types).
 */

import { operationWithCode, ValueType } from './opcodes.ts';

export interface DisassembledFunction {
  name: string;
  /** In the code section. */
  bytes: number;
  /** Locals besides the parameters, by type. */
  locals: Partial<Record<ValueType, number>>;
  lines: string[];
  /** Where each line's code begins, in bytes from the function's first instruction. */
  offsets: number[];
  /** Instructions, and some of them by kind. */
  counts: { instructions: number; loads: number; stores: number; locals: number; calls: number; branches: number };
}

const TYPE_NAMES = new Map(Object.entries(ValueType).map(([name, code]) => [code as number, name as ValueType]));

class Reader {
  position: number;
  private readonly bytes: Uint8Array;
  private readonly view: DataView;

  constructor(bytes: Uint8Array, position = 0) {
    this.bytes = bytes;
    this.position = position;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get atEnd(): boolean {
    return this.position >= this.bytes.length;
  }

  byte(): number {
    return this.bytes[this.position++];
  }

  raw(count: number): Uint8Array {
    this.position += count;
    return this.bytes.subarray(this.position - count, this.position);
  }

  unsigned(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = this.byte();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  }

  signed(): bigint {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = this.byte();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asIntN(Number(shift) + 7, value);
    }
  }

  name(): string {
    return new TextDecoder().decode(this.raw(this.unsigned()));
  }

  float(bytes: 4 | 8): number {
    this.position += bytes;
    return bytes === 4 ? this.view.getFloat32(this.position - 4, true) : this.view.getFloat64(this.position - 8, true);
  }

  count<T>(read: () => T): T[] {
    return Array.from({ length: this.unsigned() }, read);
  }
}

interface FunctionType {
  parameters: number;
  results: number;
}

/** The functions of a module, in its order. */
export function disassemble(module: Uint8Array): DisassembledFunction[] {
  const reader = new Reader(module, 8);
  let types: FunctionType[] = [];
  const functionTypes: number[] = [];
  const names: string[] = [];
  const bodies: Uint8Array[] = [];
  let imported = 0;
  while (!reader.atEnd) {
    const id = reader.byte();
    const section = new Reader(reader.raw(reader.unsigned()));
    if (id === 1) {
      types = section.count(() => {
        section.byte();
        const [parameters, results] = [section.count(() => section.byte()).length, section.count(() => section.byte()).length];
        return { parameters, results };
      });
    } else if (id === 2) {
      section.count(() => {
        section.name();
        const name = section.name();
        const kind = section.byte();
        if (kind === 0) {
          functionTypes.push(section.unsigned());
          names.push(name);
          imported++;
          return;
        }
        if (kind === 1) section.byte(); // a table's element type
        const hasMaximum = section.byte() & 1;
        section.unsigned();
        if (hasMaximum) section.unsigned();
      });
    } else if (id === 3) section.count(() => functionTypes.push(section.unsigned()));
    else if (id === 10) section.count(() => bodies.push(section.raw(section.unsigned())));
    else if (id === 0 && section.name() === 'name' && section.byte() === 1) {
      section.unsigned();
      section.count(() => {
        names[section.unsigned()] = section.name();
      });
    }
  }
  return bodies.map((body, i) => new FunctionText(body, types, functionTypes, names, imported + i).disassemble());
}

/** Instructions without operands and immediates of their own that end a statement. */
const PLAIN: Record<number, string> = { 0x00: 'unreachable', 0x01: 'nop' };

class FunctionText {
  private readonly reader: Reader;
  private readonly types: readonly FunctionType[];
  private readonly functionTypes: readonly number[];
  private readonly names: readonly string[];
  private readonly out: DisassembledFunction;
  private readonly stack: string[] = [];
  private depth = 1;
  /** Position of the first instruction, and offset from it where the next line begins. */
  private start = 0;
  private next = 0;

  constructor(body: Uint8Array, types: readonly FunctionType[], functionTypes: readonly number[], names: readonly string[], index: number) {
    this.reader = new Reader(body);
    this.types = types;
    this.functionTypes = functionTypes;
    this.names = names;
    const counts = { instructions: 0, loads: 0, stores: 0, locals: 0, calls: 0, branches: 0 };
    this.out = { name: names[index] ?? `${index}`, bytes: body.length, locals: {}, lines: [], offsets: [], counts };
  }

  disassemble(): DisassembledFunction {
    const { reader, out } = this;
    reader.count(() => {
      const count = reader.unsigned();
      const type = TYPE_NAMES.get(reader.byte()) as ValueType;
      out.locals[type] = (out.locals[type] ?? 0) + count;
    });
    this.start = reader.position;
    this.next = 0;
    while (this.depth > 0) this.instruction();
    return out;
  }

  private line(text: string, depth = this.depth): void {
    this.out.lines.push('  '.repeat(depth - 1) + text);
    this.out.offsets.push(this.next);
    this.next = this.reader.position - this.start;
  }

  private pop(count: number): string {
    return this.stack.splice(this.stack.length - count).map((text) => ` ${text}`).join('');
  }

  private call(name: string, { parameters, results }: FunctionType, index = 0): void {
    this.out.counts.calls++;
    const text = `(${name}${this.pop(parameters + index)})`;
    if (results === 0 || name.startsWith('return_')) return this.line(text);
    this.stack.push(text);
    // Only the first result can stand where it is used; the others are on the stack by then.
    for (let i = 1; i < results; i++) this.stack.push(`(result ${i})`);
  }

  private instruction(): void {
    const { reader, out, stack } = this;
    const first = reader.byte();
    const code = first === 0xfc || first === 0xfd ? (first << 8) + reader.unsigned() : first;
    out.counts.instructions++;
    switch (code) {
      case 0x02:
      case 0x03:
        reader.byte();
        this.line(code === 2 ? '(block' : '(loop');
        this.depth++;
        return;
      case 0x04:
        reader.byte();
        this.line(`(if${this.pop(1)} (then`);
        this.depth++;
        return;
      case 0x05:
        out.counts.instructions--;
        return this.line(') (else', this.depth - 1);
      case 0x0b:
        out.counts.instructions--;
        this.depth--;
        if (this.depth > 0) this.line(')');
        return;
      case 0x0c:
        out.counts.branches++;
        return this.line(`(br ${reader.unsigned()})`);
      case 0x0d:
        out.counts.branches++;
        return this.line(`(br_if ${reader.unsigned()}${this.pop(1)})`);
      case 0x0e: {
        out.counts.branches++;
        const labels = [...reader.count(() => reader.unsigned()), reader.unsigned()];
        return this.line(`(br_table ${labels.join(' ')}${this.pop(1)})`);
      }
      case 0x0f:
        return this.line(`(return${this.pop(stack.length)})`);
      case 0x10:
      case 0x12: {
        const index = reader.unsigned();
        return this.call(`${code === 0x10 ? 'call' : 'return_call'} $${this.names[index] ?? index}`, this.types[this.functionTypes[index]]);
      }
      case 0x11:
      case 0x13: {
        const type = reader.unsigned();
        reader.unsigned();
        return this.call(`${code === 0x11 ? 'call_indirect' : 'return_call_indirect'} (type ${type})`, this.types[type], 1);
      }
      case 0x1a:
        return this.line(`(drop${this.pop(1)})`);
      case 0x1b:
        stack.push(`(select${this.pop(3)})`);
        return;
      case 0x20:
        out.counts.locals++;
        stack.push(`(local.get ${reader.unsigned()})`);
        return;
      case 0x21:
        out.counts.locals++;
        return this.line(`(local.set ${reader.unsigned()}${this.pop(1)})`);
      case 0x22:
        out.counts.locals++;
        stack.push(`(local.tee ${reader.unsigned()}${this.pop(1)})`);
        return;
      case 0x23:
        stack.push(`(global.get ${reader.unsigned()})`);
        return;
      case 0x41:
        stack.push(`(i32.const ${reader.signed()})`);
        return;
      case 0x42:
        stack.push(`(i64.const ${reader.signed()})`);
        return;
      case 0x43:
      case 0x44:
        stack.push(`(f${code === 0x43 ? 32 : 64}.const ${reader.float(code === 0x43 ? 4 : 8)})`);
        return;
      case 0xfc0a:
        reader.raw(2);
        return this.line(`(memory.copy${this.pop(3)})`);
      case 0xfc0b:
        reader.raw(1);
        return this.line(`(memory.fill${this.pop(3)})`);
      case 0xfd0c:
        stack.push(`(v128.const i8x16 ${reader.raw(16).join(' ')})`);
        return;
      case 0xfd0d:
        stack.push(`(i8x16.shuffle ${reader.raw(16).join(' ')}${this.pop(2)})`);
        return;
    }
    if (PLAIN[code]) return this.line(`(${PLAIN[code]})`);
    const operation = operationWithCode(code);
    if (!operation) throw new Error(`wasm function ${out.name}: no instruction 0x${code.toString(16)} is known`);
    let immediate = '';
    if (operation.bytes !== undefined) {
      reader.unsigned();
      immediate = ` offset=${reader.unsigned()}`;
    } else if (operation.lanes !== undefined) immediate = ` ${reader.byte()}`;
    const text = `(${operation.name}${immediate}${this.pop(operation.operands.length)})`;
    const isStore = operation.bytes !== undefined && operation.operands.length === 2 && operation.name.includes('.store');
    if (operation.bytes !== undefined) out.counts[isStore ? 'stores' : 'loads']++;
    if (isStore) this.line(text);
    else stack.push(text);
  }
}
