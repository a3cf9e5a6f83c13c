/**
 * What regions call: functions of the interpreter's module. Its table of handlers is not among them: V8 keeps a copy of an imported table
 * for each instance.
 */

import type { GuestMemory } from '../../memory/guest-memory.ts';
import type { FunctionReference } from '../../wasm/function-builder.ts';
import type { ModuleBuilder } from '../../wasm/module-builder.ts';
import type { Interpreter } from '../interpreter.ts';
import { HANDLER } from '../interpreter-semantics.ts';

export interface RegionImports {
  /** (vcpu, op, codeBase): see memory-access.ts. */
  sameSecondPage: FunctionReference;
  shared: ReadonlyMap<string, FunctionReference>;
  // The ways out, which are tail-called.
  /** (vcpu, rip): goes on at an address. */
  goTo: FunctionReference;
  /** (vcpu, op): goes on with the interpreter's handler of an operation. */
  interpret: FunctionReference;
  /** (vcpu, op): follows a link of a block's last operation, that of its branch or that to what is behind. */
  follow: { taken: FunctionReference; next: FunctionReference };
}

/** Imports all of them: into a module that has no functions yet. */
export function importForRegions(module: ModuleBuilder, { memory }: GuestMemory, interpreter: Interpreter): RegionImports {
  module.importMemory(memory);
  const sameSecondPage = module.importFunction('same_second_page', { parameters: ['i32', 'i32', 'i64'], results: ['i32'] });
  const shared = new Map(interpreter.shared.map(({ name, signature }) => [name, module.importFunction(name, signature)]));
  const goTo = module.importFunction('go_to', { parameters: ['i32', 'i64'], results: [] });
  const handler = (name: string): FunctionReference => module.importFunction(name, HANDLER);
  return { sameSecondPage, shared, goTo, interpret: handler('interpret'), follow: { taken: handler('follow_taken'), next: handler('follow_next') } };
}

/** The values of these imports. */
export function regionEnvironment({ memory }: GuestMemory, interpreter: Interpreter): WebAssembly.Imports {
  return { env: { ...interpreter.exports, memory } } as unknown as WebAssembly.Imports;
}
