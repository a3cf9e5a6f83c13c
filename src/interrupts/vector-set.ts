/**
 * A 256-bit register with one bit for each vector (IRR, ISR, TMR), its highest set bit always at hand.
 * SDM 3A 11.8.4.
 */

/** A set of vectors, 0 to 255. Reading `highest` costs nothing; only removing the highest one looks for the next. */
export class VectorSet {
  /** The register as the guest reads it, 32 vectors a word. Change it through the methods. */
  readonly words = new Uint32Array(8);
  private top = -1;

  /** The highest vector set, -1 if there is none. */
  get highest(): number {
    return this.top;
  }

  has(vector: number): boolean {
    return ((this.words[vector >>> 5] >>> (vector & 31)) & 1) !== 0;
  }

  /** Returns false if the vector was set already. */
  add(vector: number): boolean {
    if (this.has(vector)) return false;
    this.words[vector >>> 5] |= 1 << (vector & 31);
    if (vector > this.top) this.top = vector;
    return true;
  }

  delete(vector: number): void {
    this.words[vector >>> 5] &= ~(1 << (vector & 31));
    if (vector !== this.top) return;
    let index = vector >>> 5;
    while (index >= 0 && this.words[index] === 0) index--;
    this.top = index < 0 ? -1 : (index << 5) + 31 - Math.clz32(this.words[index]);
  }

  clear(): void {
    this.words.fill(0);
    this.top = -1;
  }
}
