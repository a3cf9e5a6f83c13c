/**
 * Generates the interpreter: one WebAssembly module with a handler for every form and variant of every defined
 * instruction, the memory access functions, and a table of the handlers that decoded operations name by index.
 */

import type { CpuModel } from '../cpu/cpu-model.ts';
import * as state from '../cpu/state.ts';
import '../isa/all.ts';
import { type CodeMode, buildDecodeTables, type Decoded, type Form, forms } from '../isa/decoder.ts';
import type { Operand, SharedFunction } from '../isa/semantics.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { type Expression, i32 } from '../wasm/expression.ts';
import type { FunctionBuilder, FunctionReference } from '../wasm/function-builder.ts';
import { ModuleBuilder } from '../wasm/module-builder.ts';
import { HANDLER, type HandlerTargets, InterpreterSemantics, type RmKind, sizeBits, type Variant } from './interpreter-semantics.ts';
import * as L from './layout.ts';
import { buildMemoryAccess } from './memory-access.ts';

/** Helpers by name: TypeScript functions that handlers call as (vcpu, …i32) -> i32. How many i32 each takes is its arity. */
export type Helpers = Record<string, (...args: number[]) => number | void>;

/** Functions the engine gives to the module besides helpers; see memory-access.ts for what they do. */
export interface EngineImports {
  page_fault(vcpu: number, code: number): void;
  non_canonical(vcpu: number): void;
  mmio_read(vcpu: number, bytes: number): void;
  mmio_write(vcpu: number, bytes: number): void;
  code_written(linear: number, bytes: number): void;
  resolve(vcpu: number): number;
  resolve_link(vcpu: number, op: number, link: number): number;
  hot(vcpu: number, block: number): void;
  raise(vcpu: number, vector: number, code: number): void;
  check_page(vcpu: number, op: number): number;
  data_access(vcpu: number, bytes: number, how: number): void;
  watched_instruction(vcpu: number): void;
  segment_allows(vcpu: number, segment: number, bytes: number, write: number): number;
}

/** Operations that no instruction decodes to: what the block builder adds. */
export const MICRO_OPS = ['stale', 'leave', 'chain', 'watch', 'watch-point', 'shadow', 'undefined', 'too-long', 'check-page', 'check-limit', 'address', 'address-absolute', 'address-cut', 'address-segmented', 'offset', 'offset-cut'] as const;
export type MicroOp = (typeof MICRO_OPS)[number];

export interface InterpreterExports {
  /** Runs from a block's first operation until something leaves to the run loop. */
  enter(vcpu: number, op: number): void;
  /** Runs from RIP. */
  run(vcpu: number): void;
  /** What compiled regions leave by (jit/region-state.ts). */
  go_to(vcpu: number, rip: bigint): void;
  interpret(vcpu: number, op: number): void;
  follow_taken(vcpu: number, op: number): void;
  follow_next(vcpu: number, op: number): void;
  fill(vcpu: number, address: bigint, access: number): number;
  /** See memory-access.ts; what compiled regions call. */
  enter_handler(vcpu: number, vector: number, code: number, isFault: number): number;
  code_check(linear: number, bytes: number): void;
  table: WebAssembly.Table;
}

/** A function that handlers share, exported under its name: what regions import. */
export type SharedSignature = Pick<SharedFunction, 'name' | 'signature'>;

export interface Interpreter {
  exports: InterpreterExports;
  shared: readonly SharedSignature[];
  /** Table index of a micro-operation's handler. */
  microOp: Record<MicroOp, number>;
  /** Table index of the handler for a decoded instruction, addressed as `rm` says. */
  handlerOf(decoded: Decoded, codeBits: CodeMode, rm: RmKind): number;
  handlerCount: number;
  moduleBytes: number;
}

/** Compiled regions there may be at a time at most: room in the table behind the handlers, whose numbers have 16 bits. */
export const REGION_CAPACITY = 49152;

const SIZES = [16, 32, 64] as const;
const KINDS: readonly RmKind[] = ['register', 'simple', 'general', 'flat'];
const MODES: readonly CodeMode[] = [state.CODE_64, state.CODE_32_FLAT, state.CODE_32];
const REPEATS = ['none', 'rep', 'repne'] as const;
const VARIANTS = SIZES.length * KINDS.length * MODES.length * REPEATS.length * SIZES.length;

function variantIndex(form: Form, operandBits: number, rm: RmKind, codeBits: CodeMode, repeat: string, addressBits: number): number {
  const size = operandBits === 16 ? 0 : operandBits === 32 ? 1 : 2;
  const address = addressBits === 16 ? 0 : addressBits === 32 ? 1 : 2;
  const repetition = repeat === 'none' ? 0 : repeat === 'rep' ? 1 : 2;
  return form.id * VARIANTS + (((size * KINDS.length + KINDS.indexOf(rm)) * MODES.length + MODES.indexOf(codeBits)) * REPEATS.length + repetition) * SIZES.length + address;
}

/** Two forms with the same instruction and operands of the same kinds share a handler. */
function signatureOf(form: Form, v: Variant): string {
  const { instruction, encoding } = form;
  const operands = encoding.operands.map(({ code, size }, i) => {
    const bits = sizeBits(size, v.operandBits);
    if (i === form.rmPosition && v.rm !== 'register') return `${v.rm}${size === '' ? '' : bits}`;
    if ('EGRZB'.includes(code)) return `g${bits}`;
    if ('VWU'.includes(code)) return `v${bits}`;
    if ('PQN'.includes(code)) return `m${bits}`;
    return `${code}${bits}`;
  });
  return [instruction.id, v.operandBits, v.codeBits, v.repeat, v.addressBits, ...operands].join(' ');
}

/** 64-bit mode and legacy modes have different handlers. */
const isModal = ({ instruction, encoding }: Form): boolean => instruction.modal === true || instruction.ends === 'block' || encoding.vex;

/** The modes of code that have handlers of their own for a form; the others share one (handlerOf). */
function modesOf(form: Form): CodeMode[] {
  const { instruction, encoding: { modifiers } } = form;
  const modal = isModal(form);
  if (modifiers.has('o64')) return [state.CODE_64];
  if (modifiers.has('n64')) return modal || instruction.displaced ? [state.CODE_32_FLAT, state.CODE_32] : [state.CODE_32];
  if (modal) return [state.CODE_64, state.CODE_32_FLAT, state.CODE_32];
  return instruction.displaced ? [state.CODE_64, state.CODE_32] : [state.CODE_64];
}

/** For 16, 32, 64-bit and flat 32-bit code, which mode's handlers a form's instructions have there. */
function handlerModesOf(form: Form): CodeMode[] {
  const modes = modesOf(form);
  const shared = modes.includes(state.CODE_64) ? state.CODE_64 : state.CODE_32;
  return ([state.CODE_32, state.CODE_32, state.CODE_64, state.CODE_32_FLAT] as const).map((wanted) => (modes.includes(wanted) ? wanted : shared));
}

/** Number of handlers that `form` needs, one by one. */
function* variantsOf(form: Form): Generator<Variant> {
  const { instruction, encoding } = form;
  const { modifiers } = encoding;
  const sizes = encoding.sized ? SIZES.filter((bits) => !(['s16', 's32', 's64'].some((m) => modifiers.has(m)) && !modifiers.has(`s${bits}`))) : ([32] as const);
  const modal = isModal(form);
  const modes = modesOf(form);
  const rms: RmKind[] = [];
  if (form.rmPosition < 0 || form.allowsRegister) rms.push('register');
  if (form.allowsMemory) rms.push('simple', ...(instruction.hot ? (['general', 'flat'] as const) : []));
  for (const operandBits of sizes) {
    for (const codeBits of modes) {
      if (codeBits !== 64 && operandBits === 64) continue;
      const addresses = instruction.addressed ? (codeBits === 64 ? ([64, 32] as const) : ([32, 16] as const)) : ([64] as const);
      const allAddresses = instruction.addressed && !modal ? SIZES : addresses;
      for (const rm of rms) {
        for (const repeat of instruction.repeat ? REPEATS : ([REPEATS[0]] as const)) {
          for (const addressBits of allAddresses) yield { operandBits, codeBits, rm, repeat, addressBits };
        }
      }
    }
  }
}

function buildHandler(f: FunctionBuilder, form: Form, variant: Variant, targets: HandlerTargets): void {
  const { instruction, encoding } = form;
  const x = new InterpreterSemantics(f, targets, instruction, variant);
  let immediates = 0;
  const operands: Operand[] = encoding.operands.map((specification, i) => {
    const access = (instruction.access?.[i] ?? 'r') as 'r' | 'w' | 'm';
    const isImmediate = ['I', 'sI', 'J'].includes(specification.code);
    return x.operand(specification, i, access, i === form.rmPosition, isImmediate ? immediates++ : 0);
  });
  try {
    if (encoding.vex && variant.codeBits !== 64) x.requireProtectedMode();
    instruction.semantics(x, ...operands);
  } catch (error) {
    throw new Error(`${instruction.mnemonic} (${encoding.text}): ${(error as Error).message}`, { cause: error });
  }
  if (instruction.ends === 'block') x.leave();
  else x.next();
}

/** Handlers of the operations the block builder adds. */
function buildMicroOp(f: FunctionBuilder, name: MicroOp, targets: HandlerTargets, checkPage: FunctionReference, watchedInstruction: FunctionReference): void {
  const x = new InterpreterSemantics(f, targets, { mnemonic: name }, { operandBits: 64, addressBits: 64, codeBits: 64, rm: 'register', repeat: 'none' });
  const { vcpu, op } = x;
  const register = (field: number) => vcpu.add(op.load('i32.load', field)).load('i64.load');
  const offset = () => register(L.OP_BASE).add(register(L.OP_INDEX).shl(op.load('i64.load8_u', L.OP_SCALE))).add(op.load('i64.load32_s', L.OP_DISPLACEMENT));
  const mask = () => op.load('i64.load', L.OP_IMMEDIATE);
  switch (name) {
    case 'stale':
    case 'leave':
      // The code this was decoded from has changed, or an event is due: give the unexecuted rest back and look again.
      x.setState32(state.BUDGET, x.state32(state.BUDGET).add(op.load('i32.load16_s', L.OP_REMAINING)).add(1));
      x.setState64(state.RIP, x.ip());
      return f.return();
    case 'chain':
      return x.goOn();
    case 'watch':
    case 'watch-point': {
      // In front of an instruction that somebody may want to see: one that is part of no block's length.
      const report = (): void => {
        f.store('i32.store', vcpu, op, state.CURRENT_OP);
        f.call(watchedInstruction, vcpu);
      };
      if (name === 'watch-point') report();
      else f.if(x.state32(state.BREAKPOINTS).and(state.WATCHED), report);
      return x.next();
    }
    case 'shadow':
      // The block ends behind STI: the instruction after it runs before anything else is looked at.
      x.setState32(state.INTERRUPT_SHADOW, 1);
      x.setState64(state.RIP, x.ip());
      return f.return();
    case 'undefined':
      x.raise(6);
      return f.return();
    case 'too-long':
      x.raiseWithCode(13, 0);
      return f.return();
    case 'check-page':
      f.store('i32.store', vcpu, op, state.CURRENT_OP);
      f.if(f.call(checkPage, vcpu, op).eqz(), () => {
        x.setState32(state.BUDGET, x.state32(state.BUDGET).add(op.load('i32.load16_s', L.OP_REMAINING)).add(1));
        x.setState64(state.RIP, x.ip());
        f.return();
      });
      return x.next();
    case 'check-limit':
      // The block reaches beyond CS's limit: it goes on instruction by instruction.
      f.if(vcpu.load('i64.load', state.CODE_BASE).add(op.load('i64.load', L.OP_IMMEDIATE)).gtU(vcpu.load('i64.load32_u', state.CS + state.SEGMENT_LIMIT)), () => {
        x.setState32(state.BUDGET, x.state32(state.BUDGET).add(op.load('i32.load16_s', L.OP_REMAINING)).add(1));
        x.setState64(state.RIP, x.ip());
        x.setState32(state.STEP_NEXT, 1);
        f.return();
      });
      return x.next();
    case 'address':
      x.setState64(state.EFFECTIVE_ADDRESS, offset().add(register(L.OP_SEGMENT)));
      return x.next();
    case 'address-absolute':
      x.setState64(state.EFFECTIVE_ADDRESS, op.load('i64.load', L.OP_IMMEDIATE).add(register(L.OP_SEGMENT)));
      return x.next();
    case 'address-cut':
      x.setState64(state.EFFECTIVE_ADDRESS, offset().and(mask()).add(register(L.OP_SEGMENT)));
      return x.next();
    case 'offset':
      x.setState64(state.EFFECTIVE_ADDRESS, offset());
      return x.next();
    case 'offset-cut':
      x.setState64(state.EFFECTIVE_ADDRESS, offset().and(mask()));
      return x.next();
    case 'address-segmented': {
      // OP_SEGMENT is the segment's state; OP_REGISTER holds how many bytes are accessed, and behind that whether they are written.
      const field = (n: number) => op.load('i32.load', L.OP_REGISTER + 4 * n);
      x.setState64(state.EFFECTIVE_ADDRESS, f.call(targets.operandLinear, vcpu, op, op.load('i32.load', L.OP_SEGMENT), offset().and(mask()), field(0), field(1)));
      return x.next();
    }
  }
}

/** What machines of the same layout have in common. */
interface Generated {
  module: WebAssembly.Module;
  microOp: Record<MicroOp, number>;
  /** Handlers by `variantIndex`; 0 is none. */
  index: Int16Array;
  shared: SharedSignature[];
  handlerCount: number;
  moduleBytes: number;
}

/** A function of the module that definitions ask for by name, made when it is first asked for. */
function sharedFunction(module: ModuleBuilder, made: Map<string, FunctionBuilder>, { name, signature, build }: SharedFunction): FunctionBuilder {
  const known = made.get(name);
  if (known) return known;
  const f = module.function(name, signature);
  made.set(name, f);
  f.return(...build(f, ...signature.parameters.map((_, i) => f.parameter(i))));
  return f;
}

const GENERATED_KEPT = 8;
/** The last modules that were generated, by all that went into them. Making one takes some tenths of a second. */
const generated = new Map<string, Generated>();

function generatedFor(memory: GuestMemory, layout: L.Layout, helpers: Helpers, model: CpuModel, hotEntries: number): Generated {
  const { memory: linear, ramBase, ramBytes, lowBytes } = memory;
  const key = [hotEntries, linear.buffer.byteLength, ramBase, ramBytes, lowBytes, ...Object.values(layout), ...model.features, model.physicalAddressBits, ...Object.entries(helpers).map(([name, f]) => name + f.length)].join();
  const found = generated.get(key) ?? generate(memory, layout, helpers, model, hotEntries);
  generated.delete(key);
  generated.set(key, found);
  if (generated.size > GENERATED_KEPT) generated.delete(generated.keys().next().value as string);
  return found;
}

function generate(memory: GuestMemory, layout: L.Layout, helpers: Helpers, model: CpuModel, hotEntries: number): Generated {
  buildDecodeTables();
  const module = new ModuleBuilder();
  module.importMemory(memory.memory);
  const effect = (name: string, count: number): FunctionReference => module.importFunction(name, { parameters: Array(count).fill('i32'), results: [] });
  const value = (name: string, count: number): FunctionReference => module.importFunction(name, { parameters: Array(count).fill('i32'), results: ['i32'] });
  const pageFault = effect('page_fault', 2);
  const nonCanonical = effect('non_canonical', 1);
  const mmioRead = effect('mmio_read', 2);
  const mmioWrite = effect('mmio_write', 2);
  const codeWritten = effect('code_written', 2);
  const resolve = value('resolve', 1);
  const resolveLink = value('resolve_link', 3);
  const hot = effect('hot', 2);
  const raise = effect('raise', 3);
  const checkPage = value('check_page', 2);
  const segmentAllows = value('segment_allows', 4);
  const dataAccess = effect('data_access', 3);
  const watchedInstruction = effect('watched_instruction', 1);
  const helperReferences = new Map(Object.entries(helpers).map(([name, f]) => [name, value(`helper_${name}`, f.length)]));

  const access = buildMemoryAccess(module, memory, layout, { pageFault, nonCanonical, mmioRead, mmioWrite, codeWritten, resolve, raise, checkPage, segmentAllows, dataAccess, staleHandler: 1 + MICRO_OPS.indexOf('stale') }, model);
  const resume = module.function('resume', HANDLER);
  const sharedFunctions = new Map<string, FunctionBuilder>();
  const targets: HandlerTargets = {
    resume,
    handlerType: module.type(HANDLER),
    readSlow: access.readSlow,
    writeSlow: access.writeSlow,
    lookup: access.lookup,
    bulk: access.bulk,
    codeCheck: access.codeCheck,
    resolveLink,
    hot,
    hotEntries,
    raise,
    segmentLinear: access.segmentLinear,
    operandLinear: access.operandLinear,
    stackLinear: access.stackLinear,
    helpers: helperReferences,
    shared: (target) => sharedFunction(module, sharedFunctions, target),
  };

  {
    const x = new InterpreterSemantics(resume, targets, { mnemonic: 'resume' }, { operandBits: 64, addressBits: 64, codeBits: 64, rm: 'register', repeat: 'none' });
    x.f.if(x.state32(state.EVENT_PENDING).or(x.state32(state.BUDGET).leS(0)), () => x.f.return());
    x.goTo(x.state64(state.RIP));
  }
  // Index 0 stays a handler that is never right: an operation of zeros is found at once.
  const handlers: FunctionBuilder[] = [];
  const trap = module.function('no_operation', HANDLER);
  trap.unreachable();
  handlers.push(trap);
  const microOp = {} as Record<MicroOp, number>;
  for (const name of MICRO_OPS) {
    const f = module.function(`micro_${name}`, HANDLER);
    buildMicroOp(f, name, targets, access.checkPage, watchedInstruction);
    microOp[name] = handlers.push(f) - 1;
  }
  const shared = new Map<string, number>();
  const index = new Int16Array(forms.length * VARIANTS);
  for (const form of forms) {
    const { feature } = form.instruction;
    if (feature !== undefined && !model.features.has(feature)) continue;
    for (const v of variantsOf(form)) {
      const signature = signatureOf(form, v);
      let handler = shared.get(signature);
      if (handler === undefined) {
        const f = module.function(`${form.instruction.mnemonic} ${signature}`, HANDLER);
        buildHandler(f, form, v, targets);
        handler = handlers.push(f) - 1;
        shared.set(signature, handler);
      }
      index[variantIndex(form, v.operandBits, v.rm, v.codeBits, v.repeat, v.addressBits)] = handler;
    }
  }

  const semantics = (f: FunctionBuilder, op: Expression): InterpreterSemantics =>
    new InterpreterSemantics(f, targets, { mnemonic: f.name }, { operandBits: 64, addressBits: 64, codeBits: 64, rm: 'register', repeat: 'none' }, op);
  /** A function that does what `build` says with an operation, its second parameter. */
  const onOperation = (name: string, build: (x: InterpreterSemantics) => void): FunctionReference => {
    const f = module.function(name, HANDLER);
    build(semantics(f, f.parameter(1)));
    return f;
  };
  const enter = onOperation('enter', (x) => x.enter(x.op));
  const interpret = onOperation('interpret', (x) => x.interpret());
  const followTaken = onOperation('follow_taken', (x) => x.followBranch());
  const followNext = onOperation('follow_next', (x) => x.goOn());
  const goTo = module.function('go_to', { parameters: ['i32', 'i64'], results: [] });
  semantics(goTo, i32(0)).goToRegion(goTo.parameter(1), handlers.length);
  const run = module.function('run', { parameters: ['i32'], results: [] });
  run.returnCall(goTo, run.parameter(0), run.parameter(0).load('i64.load', state.RIP));
  module.table(handlers, REGION_CAPACITY);
  for (const reference of [enter, run, goTo, interpret, followTaken, followNext, access.fill, access.codeCheck, access.sameSecondPage, access.enterHandler, ...sharedFunctions.values()]) module.export(reference);

  const bytes = module.bytes();
  const sharedSignatures = [...sharedFunctions.values()].map(({ name, signature }) => ({ name, signature }));
  return { module: new WebAssembly.Module(bytes), microOp, index, shared: sharedSignatures, handlerCount: handlers.length, moduleBytes: bytes.length };
}

/** The interpreter of one machine, whose blocks are hot each time they have been entered `hotEntries` times (a power of two): generated and compiled, unless a machine of the same layout has been before, and instantiated. */
export function createInterpreter(memory: GuestMemory, layout: L.Layout, imports: EngineImports, helpers: Helpers, model: CpuModel, hotEntries: number): Interpreter {
  const { module, microOp, index, shared, handlerCount, moduleBytes } = generatedFor(memory, layout, helpers, model, hotEntries);
  const env: Record<string, unknown> = { memory: memory.memory, ...imports };
  for (const [name, f] of Object.entries(helpers)) env[`helper_${name}`] = f;
  const instance = new WebAssembly.Instance(module, { env } as WebAssembly.Imports);

  const handlerModes: (readonly CodeMode[])[] = [];
  const handlerOf = (d: Decoded, codeBits: CodeMode, rm: RmKind): number => {
    const { instruction, encoding } = d.form;
    handlerModes[d.form.id] ??= handlerModesOf(d.form);
    const mode = handlerModes[d.form.id][codeBits >> 5];
    const handler = index[
      variantIndex(d.form, encoding.sized ? d.operandBits : 32, rm, mode, instruction.repeat ? d.repeat : 'none', instruction.addressed ? d.addressBits : 64)
    ];
    if (handler === 0) throw new Error(`no handler for ${instruction.mnemonic} (${encoding.text}) ${rm} ${d.operandBits} in ${codeBits}-bit code`);
    return handler;
  };
  return { exports: instance.exports as unknown as InterpreterExports, shared, microOp, handlerOf, handlerCount, moduleBytes };
}
