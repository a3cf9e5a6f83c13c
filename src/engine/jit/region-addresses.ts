/**
 * What a region knows of addresses while it is being built: which of them are a known distance apart, and the translations at hand. A page
 * that one access has found in the TLB serves the next ones near it, [rsp + 8] after [rsp], until control comes from elsewhere: nothing
 * that a region does itself changes the TLB.
 */

import type { Expression } from '../../wasm/expression.ts';
import type { Assignments, FunctionBuilder, Local } from '../../wasm/function-builder.ts';

const PAGE = 4096;
/** Translations at hand at once. */
const MOST = 8;
/** What is farther away than this is in another page too often. */
const NEAR = 256;
/** Distances larger than this are not followed. */
const FARTHEST = 2 ** 40;
const FIRST_LOCALS = 128;
const LOW_32_BITS = 0xffff_ffff;

/** A number that is not known, and the distance from it. Number 0: nothing is known. */
interface Value {
  number: number;
  distance: number;
}

/** A page's translation: of an address, where in its page and in linear memory it is. */
export interface Translation extends Value {
  offset: Local;
  host: Local;
  forWrites: boolean;
  /** Translations kept later have a higher one. */
  turn: number;
}

/** What was known at a place, to go on from there. */
interface Snapshot {
  numbers: Int32Array<ArrayBuffer>;
  distances: Float64Array<ArrayBuffer>;
  translations: Translation[];
  assigned: number;
}

export class RegionAddresses implements Assignments {
  /** Whether what is found now may serve what follows: keeping a translation has a small price. */
  areWorthKeeping = false;
  /** Of what each local holds, by its index. */
  private numbers = new Int32Array(FIRST_LOCALS);
  private distances = new Float64Array(FIRST_LOCALS);
  private translations: Translation[] = [];
  private nextNumber = 1;
  private readonly sums = new Map<number, number>();
  /** Locals assigned, in this order: those in a scope are unknown behind it. */
  private readonly assigned: number[] = [];
  private readonly scopes: { assigned: number; turn: number }[] = [];
  private readonly locals: { offset: Local; host: Local }[] = [];
  private turn = 0;
  private readonly f: FunctionBuilder;
  private readonly follows: boolean;

  /** Where it does not follow what happens, nothing is ever known. */
  constructor(f: FunctionBuilder, follows: boolean) {
    this.f = f;
    this.follows = follows;
    if (follows) f.assignments = this;
  }

  /** Nothing is known where control may come from several places. */
  forget(): void {
    if (!this.follows) return;
    this.numbers.fill(0);
    this.translations.length = 0;
  }

  /** Translations are not to be used any more. */
  forgetTranslations(): void {
    this.translations.length = 0;
  }

  snapshot(): Snapshot | null {
    if (!this.follows) return null;
    const { numbers, distances, translations, assigned } = this;
    return { numbers: numbers.slice(), distances: distances.slice(), translations: translations.slice(), assigned: assigned.length };
  }

  restore(snapshot: Snapshot | null): void {
    if (!snapshot) return;
    this.numbers = snapshot.numbers;
    this.distances = snapshot.distances;
    this.translations = snapshot.translations;
    this.assigned.length = snapshot.assigned;
  }

  /** A translation of what is near `address`, and how far away that is. */
  near(address: Expression, write: boolean): { translation: Translation; distance: number } | undefined {
    if (!this.follows) return undefined;
    const value = this.valueOf(address);
    for (let i = this.translations.length - 1; i >= 0; i--) {
      const translation = this.translations[i];
      const distance = value.distance - translation.distance;
      if (translation.number === value.number && Math.abs(distance) <= NEAR && (translation.forWrites || !write)) return { translation, distance };
    }
    return undefined;
  }

  /** `address` was found at `host`: keeps that. */
  keep(address: Expression, host: Expression, forWrites: boolean): void {
    if (!this.follows || !this.areWorthKeeping) return;
    const { f } = this;
    const turn = ++this.turn;
    const place = turn % MOST;
    this.locals[place] ??= { offset: f.variable('i32'), host: f.variable('i32') };
    const { offset, host: at } = this.locals[place];
    this.translations = this.translations.filter((translation) => translation.host !== at);
    f.set(offset, address.wrap().and(PAGE - 1));
    f.set(at, host);
    this.translations.push({ ...this.valueOf(address), offset, host: at, forWrites, turn });
  }

  // --- Assignments ----------------------------------------------------------------------------------

  set(local: Local, value: Expression | null): void {
    const { index } = local;
    if (this.scopes.length) this.assigned.push(index);
    if (index >= this.numbers.length) this.grow(index);
    if (local.type !== 'i64' || value === null) {
      this.numbers[index] = 0;
      return;
    }
    const { number, distance } = this.valueOf(value);
    this.numbers[index] = number;
    this.distances[index] = distance;
  }

  scopeBegins(isLoop: boolean): void {
    if (isLoop) this.forget();
    this.scopes.push({ assigned: this.assigned.length, turn: this.turn });
  }

  /** The other half of a scope, too, begins with what was known in front of it. */
  otherwise(): void {
    const { assigned, turn } = this.scopes[this.scopes.length - 1];
    for (let i = assigned; i < this.assigned.length; i++) this.numbers[this.assigned[i]] = 0;
    if (this.turn > turn) this.translations = this.translations.filter((translation) => translation.turn <= turn);
  }

  scopeEnds(): void {
    this.otherwise();
    this.scopes.pop();
  }

  private grow(index: number): void {
    const { numbers, distances } = this;
    this.numbers = new Int32Array(2 * index);
    this.distances = new Float64Array(2 * index);
    this.numbers.set(numbers);
    this.distances.set(distances);
  }

  private fresh(): Value {
    return { number: this.nextNumber++, distance: 0 };
  }

  private valueOf(expression: Expression): Value {
    const { kind, operands } = expression;
    if (kind === 'local') {
      const index = expression.immediate as number;
      if (index >= this.numbers.length) this.grow(index);
      if (!this.numbers[index]) {
        this.numbers[index] = this.nextNumber++;
        this.distances[index] = 0;
      }
      return { number: this.numbers[index], distance: this.distances[index] };
    }
    if (kind !== 'operation') return this.fresh();
    const [a, b] = operands;
    const constant = b?.kind === 'const' ? Number(b.immediate) : null;
    switch (expression.operation?.name) {
      case 'i64.add':
        if (constant === null) return this.sum(this.valueOf(a), this.valueOf(b));
        return this.at(this.valueOf(a), constant);
      case 'i64.sub':
        return constant === null ? this.fresh() : this.at(this.valueOf(a), -constant);
      case 'i64.shl': {
        if (constant === null || constant > 3) return this.fresh();
        const { number, distance } = this.valueOf(a);
        return this.made(number, -1 - constant, distance * 2 ** constant);
      }
      // Where the sum wraps around, a page ends.
      case 'i64.and': {
        if (constant !== LOW_32_BITS) return this.fresh();
        const { number, distance } = this.valueOf(a);
        return this.made(number, -5, distance);
      }
      default:
        return this.fresh();
    }
  }

  private at({ number, distance }: Value, more: number): Value {
    return Math.abs(distance + more) < FARTHEST ? { number, distance: distance + more } : this.fresh();
  }

  private sum(a: Value, b: Value): Value {
    return this.made(Math.min(a.number, b.number), Math.max(a.number, b.number), a.distance + b.distance);
  }

  /** The number that two others, or one and an operation (negative), make. */
  private made(a: number, b: number, distance: number): Value {
    if (Math.abs(distance) >= FARTHEST) return this.fresh();
    const key = a * 2 ** 24 + b;
    let number = this.sums.get(key);
    if (number === undefined) {
      number = this.nextNumber++;
      this.sums.set(key, number);
    }
    return { number, distance };
  }
}
