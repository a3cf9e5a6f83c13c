/**
 * LZMA and LZMA2 decoding (the LZMA specification by Igor Pavlov; the .xz format's LZMA2 chunks).
 * The output buffer is the dictionary: a kernel is unpacked whole, so nothing ever leaves the window.
 */

const STATES = 12;
const POSITION_STATES = 16;
const FIRST_STATE_AFTER_MATCH = 7;
const MIN_MATCH = 2;
const LITERAL_PROBABILITIES = 0x300;

/** A length coder's probabilities: two choices, 16 trees of 8 lengths twice, one tree of 256. */
const LENGTH_LOW = 2;
const LENGTH_MIDDLE = LENGTH_LOW + POSITION_STATES * 8;
const LENGTH_HIGH = LENGTH_MIDDLE + POSITION_STATES * 8;
const LENGTH_SIZE = LENGTH_HIGH + 256;

const IS_MATCH = 0;
const IS_REP = IS_MATCH + STATES * POSITION_STATES;
const IS_REP_G0 = IS_REP + STATES;
const IS_REP_G1 = IS_REP_G0 + STATES;
const IS_REP_G2 = IS_REP_G1 + STATES;
const IS_REP0_LONG = IS_REP_G2 + STATES;
const DISTANCE_SLOT = IS_REP0_LONG + STATES * POSITION_STATES;
const DISTANCE_SPECIAL = DISTANCE_SLOT + 4 * 64;
const DISTANCE_ALIGN = DISTANCE_SPECIAL + 128;
const MATCH_LENGTH = DISTANCE_ALIGN + 16;
const REP_LENGTH = MATCH_LENGTH + LENGTH_SIZE;
const LITERAL = REP_LENGTH + LENGTH_SIZE;

const PROBABILITY_BITS = 11;
const PROBABILITY_HALF = 1 << (PROBABILITY_BITS - 1);
const MOVE_BITS = 5;
const TOP = 2 ** 24;

class LzmaDecoder {
  position = 0;
  at = 0;
  private readonly input: Uint8Array;
  private readonly output: Uint8Array;
  /** Matches don't reach behind the last dictionary reset. */
  private dictionaryStart = 0;
  private probabilities = new Uint16Array(0);
  private literalContextBits = 0;
  private literalPositionMask = 0;
  private positionMask = 0;
  private state = 0;
  private rep0 = 0;
  private rep1 = 0;
  private rep2 = 0;
  private rep3 = 0;
  private range = 0;
  private code = 0;

  constructor(input: Uint8Array, output: Uint8Array) {
    this.input = input;
    this.output = output;
  }

  /** The properties byte: (pb * 5 + lp) * 9 + lc. */
  setProperties(properties: number): void {
    const literalContextBits = properties % 9;
    const literalPositionBits = Math.floor(properties / 9) % 5;
    const positionBits = Math.floor(properties / 45);
    if (positionBits > 4) throw new Error(`LZMA properties ${properties} are out of range`);
    this.literalContextBits = literalContextBits;
    this.literalPositionMask = (1 << literalPositionBits) - 1;
    this.positionMask = (1 << positionBits) - 1;
    this.probabilities = new Uint16Array(LITERAL + (LITERAL_PROBABILITIES << (literalContextBits + literalPositionBits)));
    this.resetState();
  }

  resetState(): void {
    if (this.probabilities.length === 0) throw new Error('LZMA data comes before its properties');
    this.probabilities.fill(PROBABILITY_HALF);
    this.state = 0;
    this.rep0 = this.rep1 = this.rep2 = this.rep3 = 0;
  }

  resetDictionary(): void {
    this.dictionaryStart = this.position;
  }

  startRangeCoder(): void {
    if (this.next() !== 0) throw new Error('a range coder starts with a byte other than 0');
    this.range = 0xffff_ffff;
    this.code = 0;
    for (let i = 0; i < 4; i++) this.code = (this.code * 256 + this.next()) >>> 0;
  }

  copyStored(bytes: number): void {
    if (this.at + bytes > this.input.length || this.position + bytes > this.output.length)
      throw new Error('a stored chunk is too long');
    this.output.set(this.input.subarray(this.at, this.at + bytes), this.position);
    this.at += bytes;
    this.position += bytes;
  }

  /** Decodes until `end` of the output, or to the end marker; returns whether that marker came. */
  decode(end: number): boolean {
    if (this.probabilities.length === 0) throw new Error('LZMA data comes before its properties');
    if (end > this.output.length) throw new Error('more data than the kernel says');
    while (this.position < end) {
      const positionState = this.position & this.positionMask;
      const { state } = this;
      if (this.bit(IS_MATCH + state * POSITION_STATES + positionState) === 0) {
        this.literal();
        continue;
      }
      let length: number;
      if (this.bit(IS_REP + state) === 0) {
        this.rep3 = this.rep2;
        this.rep2 = this.rep1;
        this.rep1 = this.rep0;
        length = this.length(MATCH_LENGTH, positionState);
        this.state = state < FIRST_STATE_AFTER_MATCH ? 7 : 10;
        this.rep0 = this.distance(length);
        if (this.rep0 === 0xffff_ffff) return true;
      } else {
        if (this.position === this.dictionaryStart) throw new Error('a repeated match comes first');
        if (this.bit(IS_REP_G0 + state) === 0) {
          if (this.bit(IS_REP0_LONG + state * POSITION_STATES + positionState) === 0) {
            this.state = state < FIRST_STATE_AFTER_MATCH ? 9 : 11;
            this.copyMatch(1, end);
            continue;
          }
        } else {
          let distance: number;
          if (this.bit(IS_REP_G1 + state) === 0) {
            distance = this.rep1;
          } else {
            if (this.bit(IS_REP_G2 + state) === 0) {
              distance = this.rep2;
            } else {
              distance = this.rep3;
              this.rep3 = this.rep2;
            }
            this.rep2 = this.rep1;
          }
          this.rep1 = this.rep0;
          this.rep0 = distance;
        }
        length = this.length(REP_LENGTH, positionState);
        this.state = state < FIRST_STATE_AFTER_MATCH ? 8 : 11;
      }
      this.copyMatch(length + MIN_MATCH, end);
    }
    return false;
  }

  /** The range coder keeps one normalisation pending; a finished coder's code is 0. */
  finishRangeCoder(): void {
    this.normalize();
    if (this.code !== 0) throw new Error('a range coder ends with bits left');
  }

  next(): number {
    if (this.at >= this.input.length) throw new Error('it is truncated');
    return this.input[this.at++];
  }

  private normalize(): void {
    if (this.range < TOP) {
      this.range = (this.range << 8) >>> 0;
      this.code = ((this.code << 8) | this.next()) >>> 0;
    }
  }

  private bit(index: number): 0 | 1 {
    this.normalize();
    const probability = this.probabilities[index];
    const bound = (this.range >>> PROBABILITY_BITS) * probability;
    if (this.code < bound) {
      this.range = bound;
      this.probabilities[index] = probability + (((1 << PROBABILITY_BITS) - probability) >> MOVE_BITS);
      return 0;
    }
    this.range -= bound;
    this.code -= bound;
    this.probabilities[index] = probability - (probability >> MOVE_BITS);
    return 1;
  }

  private directBits(count: number): number {
    let value = 0;
    for (let i = 0; i < count; i++) {
      this.normalize();
      this.range >>>= 1;
      const one = this.code >= this.range;
      if (one) this.code -= this.range;
      value = value * 2 + (one ? 1 : 0);
    }
    return value;
  }

  /** A binary tree of `bits` levels, most significant bit first. */
  private tree(base: number, bits: number): number {
    let node = 1;
    for (let i = 0; i < bits; i++) node = (node << 1) | this.bit(base + node);
    return node - (1 << bits);
  }

  private reverseTree(base: number, bits: number): number {
    let node = 1;
    let value = 0;
    for (let i = 0; i < bits; i++) {
      const bit = this.bit(base + node);
      node = (node << 1) | bit;
      value |= bit << i;
    }
    return value;
  }

  private literal(): void {
    const { output, position } = this;
    const previous = position > this.dictionaryStart ? output[position - 1] : 0;
    const low = position & this.literalPositionMask;
    const context = (low << this.literalContextBits) + (previous >> (8 - this.literalContextBits));
    const base = LITERAL + LITERAL_PROBABILITIES * context;
    let symbol = 1;
    if (this.state >= FIRST_STATE_AFTER_MATCH) {
      let matchByte = output[position - this.rep0 - 1];
      do {
        const matchBit = (matchByte >> 7) & 1;
        matchByte <<= 1;
        const bit = this.bit(base + ((1 + matchBit) << 8) + symbol);
        symbol = (symbol << 1) | bit;
        if (bit !== matchBit) break;
      } while (symbol < 0x100);
    }
    while (symbol < 0x100) symbol = (symbol << 1) | this.bit(base + symbol);
    output[position] = symbol;
    this.position = position + 1;
    this.state = this.state < 4 ? 0 : this.state < 10 ? this.state - 3 : this.state - 6;
  }

  private length(base: number, positionState: number): number {
    if (this.bit(base) === 0) return this.tree(base + LENGTH_LOW + positionState * 8, 3);
    if (this.bit(base + 1) === 0) return 8 + this.tree(base + LENGTH_MIDDLE + positionState * 8, 3);
    return 16 + this.tree(base + LENGTH_HIGH, 8);
  }

  private distance(length: number): number {
    const slot = this.tree(DISTANCE_SLOT + 64 * Math.min(length, 3), 6);
    if (slot < 4) return slot;
    const lowBits = (slot >> 1) - 1;
    const distance = (2 | (slot & 1)) * 2 ** lowBits;
    if (slot < 14) return distance + this.reverseTree(DISTANCE_SPECIAL + distance - slot, lowBits);
    return distance + this.directBits(lowBits - 4) * 16 + this.reverseTree(DISTANCE_ALIGN, 4);
  }

  private copyMatch(length: number, end: number): void {
    const { output, position } = this;
    const source = position - this.rep0 - 1;
    if (source < this.dictionaryStart) throw new Error('a match starts before the dictionary');
    if (position + length > end) throw new Error('a match runs past its chunk');
    for (let i = 0; i < length; i++) output[position + i] = output[source + i];
    this.position = position + length;
  }
}

/** Decodes LZMA2 chunks from `input` at `from` into `output` from `position` on. Returns where both ended. */
export function decodeLzma2(
  input: Uint8Array,
  from: number,
  output: Uint8Array,
  position: number,
): { at: number; position: number } {
  const decoder = new LzmaDecoder(input, output);
  decoder.at = from;
  decoder.position = position;
  decoder.resetDictionary();
  for (let first = true; ; first = false) {
    const control = decoder.next();
    if (control === 0) return { at: decoder.at, position: decoder.position };
    if (first && control !== 1 && control < 0xe0) throw new Error('the first LZMA2 chunk does not reset the dictionary');
    if (control === 1 || control >= 0xe0) decoder.resetDictionary();
    const sizeLow = decoder.next() * 256 + decoder.next() + 1;
    if (control < 0x80) {
      if (control > 2) throw new Error(`LZMA2 control byte ${control}`);
      decoder.copyStored(sizeLow);
      continue;
    }
    const end = decoder.position + (control & 0x1f) * 2 ** 16 + sizeLow;
    const packedBytes = decoder.next() * 256 + decoder.next() + 1;
    if (control >= 0xc0) decoder.setProperties(decoder.next());
    else if (control >= 0xa0) decoder.resetState();
    const packedEnd = decoder.at + packedBytes;
    decoder.startRangeCoder();
    if (decoder.decode(end)) throw new Error('an end marker inside LZMA2');
    decoder.finishRangeCoder();
    if (decoder.at !== packedEnd) throw new Error('an LZMA2 chunk has another size than it says');
  }
}

/** The .lzma format: properties, dictionary size, unpacked size (all ones where an end marker closes the data), then the data. */
export function unpackLzma(input: Uint8Array, unpackedBytes: number): Uint8Array {
  const HEADER_SIZE = 13;
  const UNKNOWN_SIZE = 2n ** 64n - 1n;
  if (input.length < HEADER_SIZE) throw new Error('it is truncated');
  const statedSize = new DataView(input.buffer, input.byteOffset).getBigUint64(5, true);
  if (statedSize !== UNKNOWN_SIZE && statedSize !== BigInt(unpackedBytes)) {
    throw new Error(`it holds ${statedSize} bytes instead of ${unpackedBytes}`);
  }
  const closed = statedSize === UNKNOWN_SIZE;
  // Room for one byte more shows whether the marker comes where it should.
  const end = unpackedBytes + (closed ? 1 : 0);
  const output = new Uint8Array(end);
  const decoder = new LzmaDecoder(input, output);
  decoder.setProperties(decoder.next());
  decoder.at = HEADER_SIZE;
  decoder.startRangeCoder();
  decoder.decode(end);
  if (decoder.position !== unpackedBytes) throw new Error(`it does not end after ${unpackedBytes} bytes`);
  return output.subarray(0, unpackedBytes);
}
