/** What regions call: functions of the interpreter's module. */

import type { GuestMemory } from '../../memory/guest-memory.ts';
import type { FunctionReference } from '../../wasm/function-builder.ts';
import type { ModuleBuilder } from '../../wasm/module-builder.ts';
import type { Interpreter } from '../interpreter.ts';

export interface RegionImports {
  fillQuiet: FunctionReference;
  shared: ReadonlyMap<string, FunctionReference>;
}

/** Imports all of them: into a module that has no functions yet. */
export function importForRegions(module: ModuleBuilder, { memory }: GuestMemory, interpreter: Interpreter): RegionImports {
  module.importMemory(memory);
  const fillQuiet = module.importFunction('fill_quiet', { parameters: ['i32', 'i64', 'i32', 'i32'], results: ['i32'] });
  const shared = new Map(interpreter.shared.map(({ name, signature }) => [name, module.importFunction(name, signature)]));
  return { fillQuiet, shared };
}

/** The values of these imports. */
export function regionEnvironment({ memory }: GuestMemory, interpreter: Interpreter): WebAssembly.Imports {
  return { env: { ...interpreter.exports, memory } } as unknown as WebAssembly.Imports;
}
