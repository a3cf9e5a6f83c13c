/** Appends little-endian values to a growing buffer: what firmware tables are made of. */
export class ByteWriter {
  private buffer = new Uint8Array(256);
  private view = new DataView(this.buffer.buffer);
  private used = 0;

  get length(): number {
    return this.used;
  }

  u8(...values: number[]): this {
    const offset = this.claim(values.length);
    this.buffer.set(values, offset);
    return this;
  }

  u16(value: number): this {
    const offset = this.claim(2);
    this.view.setUint16(offset, value, true);
    return this;
  }

  u32(value: number): this {
    const offset = this.claim(4);
    this.view.setUint32(offset, value, true);
    return this;
  }

  /** A safe integer as 64 bits. */
  u64(value: number): this {
    return this.u32(value % 2 ** 32).u32(Math.floor(value / 2 ** 32));
  }

  /** ASCII, cut or padded with `pad` to `length` bytes. */
  text(value: string, length = value.length, pad = ' '): this {
    for (const char of value.padEnd(length, pad).slice(0, length)) this.u8(char.charCodeAt(0));
    return this;
  }

  bytes(data: ArrayLike<number>): this {
    const offset = this.claim(data.length);
    this.buffer.set(data, offset);
    return this;
  }

  zeros(count: number): this {
    this.claim(count);
    return this;
  }

  /** Zeros up to the next multiple of `alignment`. */
  align(alignment: number): this {
    return this.zeros((alignment - (this.used % alignment)) % alignment);
  }

  finish(): Uint8Array {
    return this.buffer.slice(0, this.used);
  }

  /** Makes room before the caller takes hold of buffer or view, which growing replaces. */
  private claim(bytes: number): number {
    const offset = this.used;
    this.used += bytes;
    if (this.used > this.buffer.length) {
      const grown = new Uint8Array(Math.max(this.used, 2 * this.buffer.length));
      grown.set(this.buffer);
      this.buffer = grown;
      this.view = new DataView(grown.buffer);
    }
    return offset;
  }
}
