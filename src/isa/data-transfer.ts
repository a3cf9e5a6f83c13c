/**
 * MOV, MOVZX, MOVSX, MOVSXD, MOVNTI, CMOVcc, SETcc, XCHG, LEA, XLAT. SDM 2, instruction reference. MOV to and from segment, control
 * and debug registers is elsewhere (system.ts).
 */

import { i32, select } from '../wasm/expression.ts';
import { CONDITIONS } from './conditions.ts';
import { instruction } from './instruction.ts';

const movEncodings = [
  '88 Eb Gb', '89 Ev Gv', '8A Gb Eb', '8B Gv Ev', 'A0 AL Ob', 'A1 eAX Ov', 'A2 Ob AL', 'A3 Ov eAX', 'B0+ Zb Ib', 'B8+ Zv Iv', 'C6/0 Eb Ib', 'C7/0 Ev Iz',
]; // biome-ignore format: a table
instruction('MOV', movEncodings, { access: 'wr', hot: true }, (_x, destination, source) => {
  destination.write(source.kind === 'immediate' ? source.signed() : source.unsigned());
});

instruction('MOVZX', ['0F B6 Gv Eb', '0F B7 Gv Ew'], { access: 'wr', hot: true }, (_x, destination, source) => destination.write(source.unsigned()));
instruction('MOVSX', ['0F BE Gv Eb', '0F BF Gv Ew'], { access: 'wr', hot: true }, (_x, destination, source) => destination.write(source.signed()));
instruction('MOVSXD', '63 Gv Ed ; o64', { access: 'wr', hot: true }, (_x, destination, source) => destination.write(source.signed()));
instruction('MOVNTI', 'NP 0F C3 My Gy', { access: 'wr', feature: 'sse2' }, (_x, destination, source) => destination.write(source.unsigned()));

CONDITIONS.forEach((name, code) => {
  const opcode = (base: number): string => (base + code).toString(16).toUpperCase();
  // The source is read, and a 32-bit destination zero-extended, in any case.
  instruction(`CMOV${name}`, `0F ${opcode(0x40)} Gv Ev`, { access: 'mr', feature: 'cmov' }, (x, destination, source) => {
    const [old, moved] = [destination.unsigned(), source.unsigned()];
    destination.write(select(x.condition(code), moved, old));
  });
  instruction(`SET${name}`, `0F ${opcode(0x90)} Eb`, { access: 'w' }, (x, destination) => destination.write(x.condition(code).extendU()));
});

instruction('XCHG', ['86 Eb Gb', '87 Ev Gv', '90+ Zv eAX'], { access: 'mm', lock: true }, (_x, first, second) => {
  const [a, b] = [first.unsigned(), second.unsigned()];
  first.write(b);
  second.write(a);
});

instruction('LEA', '8D Gv M', { access: 'wr', hot: true, unaccessed: true }, (_x, destination, source) => destination.write(source.address()));

instruction('XLAT', 'D7', { addressed: true, modal: true }, (x) => {
  const offset = x.gpr(3, x.addressBits).unsigned().add(x.gpr(0, 8).unsigned()).zeroExtend(x.addressBits);
  x.gpr(0, 8).write(x.load(x.segmentAddress('data', x.f.let(offset), i32(1), 'read'), 8, 'unsigned'));
});
