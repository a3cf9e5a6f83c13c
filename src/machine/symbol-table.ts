/** Names of places in a guest's code. */

export interface SymbolPlace {
  name: string;
  offset: number;
}

export class SymbolTable {
  private readonly addresses: bigint[];
  private readonly names: string[];
  private readonly byName: ReadonlyMap<string, bigint>;

  /** Of several names for an address the first one counts. */
  constructor(symbols: readonly (readonly [name: string, address: bigint])[]) {
    const sorted = symbols.toSorted(([, a], [, b]) => (a < b ? -1 : a > b ? 1 : 0));
    this.names = sorted.map(([name]) => name);
    this.addresses = sorted.map(([, address]) => address);
    this.byName = new Map(symbols.toReversed());
  }

  addressOf(name: string): bigint | undefined {
    return this.byName.get(name);
  }

  /** All whose name is said to be wanted, in order of their addresses. */
  named(isWanted: (name: string) => boolean): { name: string; address: bigint }[] {
    return this.names.flatMap((name, index) => (isWanted(name) ? [{ name, address: this.addresses[index] }] : []));
  }

  /** The last symbol at or before an address. */
  at(address: bigint): SymbolPlace | undefined {
    let low = 0;
    let high = this.addresses.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.addresses[middle] <= address) low = middle + 1;
      else high = middle;
    }
    if (low === 0) return undefined;
    let first = low - 1;
    while (first > 0 && this.addresses[first - 1] === this.addresses[first]) first--;
    return { name: this.names[first], offset: Number(address - this.addresses[first]) };
  }

  /** Functions that a sequence of addresses leads through, each once for every time it is entered. */
  functions(addresses: readonly bigint[]): string[] {
    const found: string[] = [];
    for (const address of addresses) {
      const { name } = this.at(address) ?? { name: `0x${address.toString(16)}` };
      if (name !== found.at(-1)) found.push(name);
    }
    return found;
  }
}
