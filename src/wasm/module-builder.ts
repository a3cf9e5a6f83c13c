/** Puts functions, imports, a table and exports together into the bytes of a WebAssembly module. */

import { ByteBuffer } from './byte-buffer.ts';
import { FunctionBuilder, type FunctionReference, type Signature } from './function-builder.ts';
import { ValueType } from './opcodes.ts';

export class ModuleBuilder {
  private readonly types = new Map<string, number>();
  private readonly typeList: Signature[] = [];
  private readonly imports: { name: string; type: number }[] = [];
  private readonly functions: FunctionBuilder[] = [];
  private readonly exported: { name: string; reference: FunctionReference }[] = [];
  private tableEntries: FunctionReference[] = [];
  private tableSpare = 0;
  private memoryPages = { initial: 0, maximum: 0 };

  /** Index of a signature in the type section. */
  type(signature: Signature): number {
    const key = `${signature.parameters}>${signature.results}`;
    let index = this.types.get(key);
    if (index === undefined) {
      index = this.typeList.length;
      this.types.set(key, index);
      this.typeList.push(signature);
    }
    return index;
  }

  /** Imports `env.memory`, shared, of exactly these pages. */
  importMemory(memory: WebAssembly.Memory): void {
    const pages = memory.buffer.byteLength / 65536;
    this.memoryPages = { initial: pages, maximum: pages };
  }

  /** Imports a function `env.name`. All imports come before the first function. */
  importFunction(name: string, signature: Signature): FunctionReference {
    if (this.functions.length) throw new Error(`import ${name} after a function`);
    this.imports.push({ name, type: this.type(signature) });
    return { name, signature, index: this.imports.length - 1 };
  }

  function(name: string, signature: Signature): FunctionBuilder {
    const builder = new FunctionBuilder(name, signature);
    this.type(signature);
    builder.index = this.imports.length + this.functions.length;
    this.functions.push(builder);
    return builder;
  }

  export(reference: FunctionReference, name = reference.name): void {
    this.exported.push({ name, reference });
  }

  /** The module's own table, filled with these functions from index 0, with room for more. Exported as `table`. */
  table(entries: FunctionReference[], spare = 0): void {
    this.tableEntries = entries;
    this.tableSpare = spare;
  }

  bytes(): Uint8Array<ArrayBuffer> {
    const out = new ByteBuffer(1 << 16);
    out.raw([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);
    const section = (id: number, count: number, write: (body: ByteBuffer) => void): void => {
      const body = new ByteBuffer(1 << 12);
      body.unsigned(count);
      write(body);
      out.byte(id);
      out.unsigned(body.length);
      out.append(body);
    };
    const customSection = (name: string, write: (body: ByteBuffer) => void): void => {
      const body = new ByteBuffer(1 << 12);
      body.name(name);
      write(body);
      out.byte(0);
      out.unsigned(body.length);
      out.append(body);
    };
    section(1, this.typeList.length, (body) => {
      for (const { parameters, results } of this.typeList) {
        body.byte(0x60);
        for (const list of [parameters, results]) {
          body.unsigned(list.length);
          for (const type of list) body.byte(ValueType[type]);
        }
      }
    });
    section(2, this.imports.length + 1, (body) => {
      for (const { name, type } of this.imports) {
        body.name('env');
        body.name(name);
        body.byte(0);
        body.unsigned(type);
      }
      body.name('env');
      body.name('memory');
      body.raw([2, 3]);
      body.unsigned(this.memoryPages.initial);
      body.unsigned(this.memoryPages.maximum);
    });
    section(3, this.functions.length, (body) => {
      for (const f of this.functions) body.unsigned(this.type(f.signature));
    });
    const entries = this.tableEntries;
    if (entries.length) {
      section(4, 1, (body) => {
        body.raw([0x70, 1]);
        body.unsigned(entries.length + this.tableSpare);
        body.unsigned(entries.length + this.tableSpare);
      });
    }
    section(7, this.exported.length + (entries.length ? 1 : 0), (body) => {
      for (const { name, reference } of this.exported) {
        body.name(name);
        body.byte(0);
        body.unsigned(reference.index);
      }
      if (entries.length) {
        body.name('table');
        body.raw([1, 0]);
      }
    });
    if (entries.length) {
      section(9, 1, (body) => {
        body.raw([0, 0x41, 0, 0x0b]);
        body.unsigned(entries.length);
        for (const entry of entries) body.unsigned(entry.index);
      });
    }
    const bodies = this.functions.map((f) => f.body());
    customSection('metadata.code.branch_hint', (body) => {
      const hinted = bodies.map(({ hints }, i) => ({ hints, index: this.functions[i].index })).filter(({ hints }) => hints.length);
      body.unsigned(hinted.length);
      for (const { hints, index } of hinted) {
        body.unsigned(index);
        body.unsigned(hints.length);
        for (const { offset, isLikely } of hints) {
          body.unsigned(offset);
          body.raw([1, isLikely ? 1 : 0]);
        }
      }
    });
    section(10, bodies.length, (body) => {
      for (const { code } of bodies) {
        body.unsigned(code.length);
        body.append(code);
      }
    });
    customSection('name', (body) => {
      const names = new ByteBuffer(1 << 12);
      names.unsigned(this.imports.length + this.functions.length);
      for (const [i, name] of [...this.imports, ...this.functions].map((f) => f.name).entries()) {
        names.unsigned(i);
        names.name(name);
      }
      body.byte(1);
      body.unsigned(names.length);
      body.append(names);
    });
    return out.view().slice() as Uint8Array<ArrayBuffer>;
  }
}
