/**
 * Builds one WebAssembly function: locals, statements, structured control flow. Values are expression trees,
 * so the operand stack cannot be wrong; types, locals and labels are checked as statements are made.
 */

import { ByteBuffer } from './byte-buffer.ts';
import { checkedOffset, emitCode, emitMemoryArgument, Expression, i32, i64, type Locals, type Operand } from './expression.ts';
import { operation, ValueType } from './opcodes.ts';

export interface Signature {
  parameters: readonly ValueType[];
  results: readonly ValueType[];
}

/** A function that can be called: imported, or built in the same module. `index` is in the module's function space. */
export interface FunctionReference {
  name: string;
  signature: Signature;
  index: number;
}

/** A conditional branch, by its offset in the function, that nearly always goes one way. */
export interface BranchHint {
  offset: number;
  isLikely: boolean;
}

/** A variable that may be assigned more than once. */
export interface Local {
  index: number;
  type: ValueType;
}

/** A place a branch can go to: the end of a block, the head of a loop. */
export interface Label {
  depth: number;
  open: boolean;
}

/** Is told what locals are assigned, in the order of the code. */
export interface Assignments {
  /** null: by something that is no expression. */
  set(local: Local, value: Expression | null): void;
  scopeBegins(isLoop: boolean): void;
  /** The scope's other half begins: that of an `if` that has one. */
  otherwise(): void;
  scopeEnds(): void;
}

export class FunctionBuilder implements FunctionReference, Locals {
  readonly name: string;
  readonly signature: Signature;
  index = -1;
  assignments: Assignments | undefined;
  private readonly localTypes: ValueType[] = [];
  private code = new ByteBuffer();
  private readonly labels: Label[] = [];
  /** Locals made by `let`: assigned once, so that reading them again is free. */
  private readonly constants = new Set<number>();
  private readonly temporaries: Local[] = [];
  private readonly spare: Partial<Record<ValueType, Local[]>> = {};
  /** Branch hints: where the code has an `if` that nearly always goes one way. */
  private hints: BranchHint[] = [];

  constructor(name: string, signature: Signature) {
    this.name = name;
    this.signature = signature;
    for (let i = 0; i < signature.parameters.length; i++) this.constants.add(i);
  }

  parameter(i: number): Expression {
    if (i >= this.signature.parameters.length) this.fail(`no parameter ${i}`);
    return new Expression('local', this.signature.parameters[i], null, [], i);
  }

  /** A variable for as long as nothing gives it back (`release`). It holds anything until it is set. */
  local(type: ValueType): Local {
    const local = this.spare[type]?.pop() ?? this.variable(type);
    this.constants.delete(local.index);
    this.temporaries.push(local);
    return local;
  }

  /** A variable for the whole function, 0 at its start. */
  variable(type: ValueType): Local {
    this.localTypes.push(type);
    return { index: this.signature.parameters.length + this.localTypes.length - 1, type };
  }

  /** How many locals `local`, `let` and `call` have made that have not been given back: a mark for `release`. */
  get temporaryCount(): number {
    return this.temporaries.length;
  }

  /** Gives back the locals, of these types, made since there were `count`: what is built from now on may use them for something else. */
  release(count: number, types?: readonly ValueType[]): void {
    for (const local of this.temporaries.splice(count)) {
      if (types && !types.includes(local.type)) {
        this.temporaries.push(local);
        continue;
      }
      this.spare[local.type] ??= [];
      this.spare[local.type]?.push(local);
    }
  }

  typeOfLocal(index: number): ValueType | undefined {
    const { parameters } = this.signature;
    return index < parameters.length ? parameters[index] : this.localTypes[index - parameters.length];
  }

  get(local: Local): Expression {
    return new Expression('local', local.type, null, [], local.index);
  }

  set(local: Local, value: Operand): void {
    if (this.typeOfLocal(local.index) !== local.type) this.fail(`local ${local.index} is none of this function's`);
    const expression = this.typed(value, local.type);
    if (expression.type !== local.type) this.fail(`local ${local.index} is ${local.type}, not ${expression.type}: ${expression}`);
    expression.emit(this.code, this);
    this.code.byte(0x21);
    this.code.unsigned(local.index);
    this.assignments?.set(local, expression);
  }

  /** Computes `value` now; what comes back can be used any number of times, whatever changes in between. */
  let(value: Expression): Expression {
    if (value.kind === 'const' || (value.kind === 'local' && this.constants.has(value.immediate as number))) return value;
    const local = this.local(value.type);
    this.constants.add(local.index);
    this.set(local, value);
    return this.get(local);
  }

  store(name: string, address: Expression, value: Operand, offset = 0): void {
    const op = operation(name);
    if (op.bytes === undefined || op.operands.length !== 2) this.fail(`${name} is no store`);
    const expression = this.typed(value, op.operands[1]);
    if (address.type !== 'i32' || expression.type !== op.operands[1]) this.fail(`${name} wants (i32, ${op.operands[1]}): ${address} , ${expression}`);
    address.emit(this.code, this);
    expression.emit(this.code, this);
    emitCode(this.code, op.code);
    emitMemoryArgument(this.code, checkedOffset(name, offset));
  }

  /** Calls for the effect and the result, which is kept in a local; without results, for the effect. */
  call(target: FunctionReference, ...operands: Operand[]): Expression {
    if (target.signature.results.length > 1) this.fail(`${target.name} has ${target.signature.results.length} results`);
    return this.callForAll(target, ...operands)[0] ?? i32(0);
  }

  /** Calls for all results, each of which is kept in a local. */
  callForAll(target: FunctionReference, ...operands: Operand[]): Expression[] {
    this.arguments(target.name, target.signature, operands);
    this.code.byte(0x10);
    this.code.unsigned(target.index);
    const locals = target.signature.results.map((type) => this.local(type));
    // The last result is on top.
    for (const local of locals.toReversed()) {
      this.constants.add(local.index);
      this.code.byte(0x21);
      this.code.unsigned(local.index);
      this.assignments?.set(local, null);
    }
    return locals.map((local) => this.get(local));
  }

  callIndirect(type: number, signature: Signature, index: Expression, ...operands: Operand[]): void {
    if (signature.results.length) this.fail('an indirect call is made for its effect: nobody takes its results');
    this.arguments('call_indirect', signature, operands);
    this.requireIndex(index);
    index.emit(this.code, this);
    this.code.byte(0x11);
    this.code.unsigned(type);
    this.code.byte(0);
  }

  /** A tail call through the table: this function's frame is gone before the target runs. */
  returnCallIndirect(type: number, signature: Signature, index: Expression, ...operands: Operand[]): void {
    this.requireOwnResults('return_call_indirect', signature);
    this.arguments('return_call_indirect', signature, operands);
    this.requireIndex(index);
    index.emit(this.code, this);
    this.code.byte(0x13);
    this.code.unsigned(type);
    this.code.byte(0);
  }

  returnCall(target: FunctionReference, ...operands: Operand[]): void {
    this.requireOwnResults(target.name, target.signature);
    this.arguments(target.name, target.signature, operands);
    this.code.byte(0x12);
    this.code.unsigned(target.index);
  }

  if(condition: Expression, then: () => void, otherwise?: () => void): void {
    this.conditional(condition, null, then, otherwise);
  }

  /** The same where the condition nearly always holds: engines that know branch hints keep the other way out of this one's. */
  ifLikely(condition: Expression, then: () => void, otherwise?: () => void): void {
    this.conditional(condition, true, then, otherwise);
  }

  /** The same where it hardly ever holds. */
  ifRarely(condition: Expression, then: () => void, otherwise?: () => void): void {
    this.conditional(condition, false, then, otherwise);
  }

  /** A block: `leave` label goes to its end. */
  block(body: (leave: Label) => void): void {
    this.code.byte(0x02);
    this.nested(body);
  }

  /** A loop: branching to `again` runs it once more; falling out of the body ends it. */
  loop(body: (again: Label) => void): void {
    this.code.byte(0x03);
    this.nested(body, true);
  }

  branch(label: Label): void {
    this.code.byte(0x0c);
    this.code.unsigned(this.distance(label));
  }

  branchIf(label: Label, condition: Expression): void {
    if (condition.type !== 'i32') this.fail(`a condition is an i32, not ${condition.type}: ${condition}`);
    condition.emit(this.code, this);
    this.code.byte(0x0d);
    this.code.unsigned(this.distance(label));
  }

  /** Runs the case that `index` (an i32) counts, or `otherwise`. Each case leaves by a branch or return of its own: there is no way on behind it. */
  switch(index: Expression, cases: readonly (() => void)[], otherwise: () => void): void {
    if (index.type !== 'i32') this.fail(`a switch is over an i32, not ${index.type}: ${index}`);
    const labels: Label[] = [];
    // The innermost block ends where the first case begins.
    const within = (count: number): void => {
      if (count < 0) {
        index.emit(this.code, this);
        this.code.byte(0x0e);
        this.code.unsigned(cases.length);
        for (const label of labels.reverse()) this.code.unsigned(this.distance(label));
        return;
      }
      this.block((label) => {
        labels.push(label);
        within(count - 1);
      });
      if (count < cases.length) cases[count]();
      else otherwise();
    };
    within(cases.length);
  }

  /** Returns values for the signature's results, the first one first. */
  return(...values: Operand[]): void {
    const { results } = this.signature;
    if (results.length !== values.length) this.fail('return does not fit the signature');
    for (const [i, type] of results.entries()) {
      const expression = this.typed(values[i], type);
      if (expression.type !== type) this.fail(`returns ${type}, not ${expression.type}: ${expression}`);
      expression.emit(this.code, this);
    }
    this.code.byte(0x0f);
  }

  unreachable(): void {
    this.code.byte(0x00);
  }

  memoryFill(address: Expression, value: Operand, bytes: Operand): void {
    this.emitIntegers('memory.fill', address, value, bytes);
    this.code.raw([0xfc, 0x0b, 0]);
  }

  memoryCopy(to: Expression, from: Expression, bytes: Operand): void {
    this.emitIntegers('memory.copy', to, from, bytes);
    this.code.raw([0xfc, 0x0a, 0, 0]);
  }

  /** A place to come back to: see `rollBack`. */
  mark(): { length: number; labels: number } {
    return { length: this.code.length, labels: this.labels.length };
  }

  /** Takes back what was built since `mark`, blocks that an error left open included. Locals made meanwhile stay, unused. */
  rollBack(mark: { length: number; labels: number }): void {
    this.code.length = mark.length;
    while ((this.hints.at(-1)?.offset ?? -1) >= mark.length) this.hints.pop();
    for (const label of this.labels.splice(mark.labels)) {
      label.open = false;
      this.assignments?.scopeEnds();
    }
  }

  /** Builds code that runs before all that has been built so far. */
  prepend(build: () => void): void {
    if (this.labels.length) this.fail('code can be put in front of a whole function only');
    const { code, hints } = this;
    this.code = new ByteBuffer(code.length + 256);
    this.hints = [];
    build();
    for (const { offset, isLikely } of hints) this.hints.push({ offset: this.code.length + offset, isLikely });
    this.code.append(code);
  }

  /** The function's entry in the code section, and hints for the branches in it. */
  body(): { code: ByteBuffer; hints: BranchHint[] } {
    if (this.labels.length) this.fail('a block was left open');
    const out = new ByteBuffer(this.code.length + 32);
    const runs: [ValueType, number][] = [];
    for (const type of this.localTypes) {
      const last = runs.at(-1);
      if (last && last[0] === type) last[1]++;
      else runs.push([type, 1]);
    }
    out.unsigned(runs.length);
    for (const [type, count] of runs) {
      out.unsigned(count);
      out.byte(ValueType[type]);
    }
    const hints = this.hints.map(({ offset, isLikely }) => ({ offset: out.length + offset, isLikely }));
    out.append(this.code);
    // A function with a result ends in `return` or a tail call; what the validator sees after it is unreachable.
    if (this.signature.results.length) out.byte(0x00);
    out.byte(0x0b);
    return { code: out, hints };
  }

  private conditional(condition: Expression, isLikely: boolean | null, then: () => void, otherwise?: () => void): void {
    if (condition.type !== 'i32') this.fail(`a condition is an i32, not ${condition.type}: ${condition}`);
    condition.emit(this.code, this);
    if (isLikely !== null) this.hints.push({ offset: this.code.length, isLikely });
    this.code.byte(0x04);
    this.nested(() => {
      then();
      if (otherwise) {
        this.code.byte(0x05);
        this.assignments?.otherwise();
        otherwise();
      }
    });
  }

  private nested(body: (label: Label) => void, isLoop = false): void {
    this.code.byte(0x40);
    this.assignments?.scopeBegins(isLoop);
    const label = { depth: this.labels.length, open: true };
    this.labels.push(label);
    body(label);
    this.labels.pop();
    label.open = false;
    this.code.byte(0x0b);
    this.assignments?.scopeEnds();
  }

  private distance(label: Label): number {
    if (!label.open || this.labels[label.depth] !== label) this.fail('a branch to a block that has ended, or of another function');
    return this.labels.length - 1 - label.depth;
  }

  /** What a tail call leaves is what this function's caller gets. */
  private requireOwnResults(name: string, { results }: Signature): void {
    if (`${results}` !== `${this.signature.results}`) this.fail(`a tail call of ${name}, which returns (${results.join(', ')}), not (${this.signature.results.join(', ')})`);
  }

  private requireIndex(index: Expression): void {
    if (index.type !== 'i32') this.fail(`a table's index is an i32, not ${index.type}: ${index}`);
  }

  private emitIntegers(name: string, ...operands: Operand[]): void {
    const typed = operands.map((operand) => this.typed(operand, 'i32'));
    if (typed.some(({ type }) => type !== 'i32')) this.fail(`${name} wants (i32, i32, i32): ${typed.join(' , ')}`);
    for (const operand of typed) operand.emit(this.code, this);
  }

  private arguments(name: string, signature: Signature, operands: readonly Operand[]): void {
    const typed = operands.map((operand, i) => this.typed(operand, signature.parameters[i]));
    const right = typed.length === signature.parameters.length && typed.every((operand, i) => operand.type === signature.parameters[i]);
    if (!right) this.fail(`call of ${name}(${signature.parameters.join(', ')}) with (${typed.map((o) => `${o.type} ${o}`).join(', ')})`);
    for (const operand of typed) operand.emit(this.code, this);
  }

  private typed(operand: Operand, type: ValueType): Expression {
    if (operand instanceof Expression) return operand;
    if (type === 'i64') return i64(operand);
    if (type === 'i32') return i32(Number(operand));
    return this.fail(`a plain number cannot be ${type}`);
  }

  private fail(message: string): never {
    throw new Error(`wasm function ${this.name}: ${message}`);
  }
}
