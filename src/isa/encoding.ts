/**
 * Encodings, written as the manual's opcode map writes them and parsed once:
 *
 *     '01 Ev Gv'              opcode, operands
 *     '81/0 Ev Iz'            ModRM.reg as an opcode extension
 *     '66 0F 6F Vdq Wdq'      mandatory prefix; NP means none of 66, F3, F2
 *     '50+ Zv ; d64'          register in the opcode's low three bits; modifiers after the semicolon
 *     'D9 F0'  'D8 C0+ i'     a second opcode byte that is a whole ModRM (x87): 0xC0 and up
 *     'VEX F2 0F 38 F5 Gy By Ey'   VEX-encoded; the prefix and map are those that VEX stands for
 *
 * Operand codes (SDM 2D, appendix A.2, same letters): E general register or memory, G general register (ModRM.reg),
 * R general register only (ModRM.rm), M memory only, I immediate, sI sign-extended immediate, J relative target, O
 * absolute offset, Z register in opcode, S segment register, C control, D debug, V XMM (reg), W XMM or memory, U XMM
 * only (rm), P MMX (reg), Q MMX or memory, N MMX only (rm), B general register in VEX.vvvv, X and Y the string operands
 * (DS:rSI, ES:rDI); AL, CL, AX, DX, eAX (operand-sized accumulator) and 1 are themselves; i is an x87 stack index.
 *
 * Sizes: b 8, w 16, d 32, q 64, t 80, dq/x/ps/pd/ss/sd vectors (whole, or 32 and 64 bits in memory), v operand
 * size, z operand size but at most 32, y 32 or 64, p far pointer, a pair of operand size (BOUND), s base and limit of a
 * descriptor table, env fpu fx xs an x87 environment, its whole state, FXSAVE's area, XSAVE's; none: no memory size (LEA, INVLPG).
 *
 * Modifiers: d64 operand size is 64 in 64-bit mode unless 66 makes it 16; f64 always 64 there; n64 invalid in
 * 64-bit mode; o64 only there; W0 W1 REX.W must be so; B0 REX.B must be 0, and it goes before an encoding that does not
 * say (90 is NOP, not XCHG); L0 VEX.L must be 0; s16 s32 s64 only with this operand size; mem reg ModRM must be so.
 */

export interface OperandSpecification {
  /** The letter, or for a fixed register its name. */
  code: string;
  /** The size's letter. */
  size: string;
}

export type MandatoryPrefix = 'any' | 'none' | '66' | 'F3' | 'F2';
/** Opcode maps: one byte, 0F, 0F38, 0F3A. */
export type OpcodeMap = 0 | 1 | 2 | 3;

export interface Encoding {
  text: string;
  map: OpcodeMap;
  opcode: number;
  prefix: MandatoryPrefix;
  /** VEX-encoded. `vvvv`: an operand is in VEX.vvvv, which must be 1111 otherwise. */
  vex: boolean;
  vvvv: boolean;
  /** Opcode extension in ModRM.reg, or -1. */
  digit: number;
  /** A whole ModRM byte (x87, MONITOR, SWAPGS…) and how many from there on match, or -1. */
  modrm: number;
  modrmCount: number;
  hasModrm: boolean;
  operands: OperandSpecification[];
  modifiers: ReadonlySet<string>;
  /** The operand size matters to it (v, z, y or eAX among its operands, or a d64/f64/s modifier). */
  sized: boolean;
}

const FIXED = new Set(['AL', 'CL', 'AX', 'DX', 'eAX', 'eDX', '1', 'i', 'AH', 'XMM0']);
const SIZES = ['dq', 'ps', 'pd', 'ss', 'sd', 'si', 'pi', 'b', 'w', 'd', 'q', 't', 'v', 'z', 'y', 'x', 'p', 'a', 's', 'env', 'fpu', 'fx', 'xs', ''];
const LETTERS = ['sI', 'E', 'G', 'R', 'M', 'I', 'J', 'O', 'Z', 'S', 'C', 'D', 'V', 'W', 'U', 'P', 'Q', 'N', 'B', 'X', 'Y'];

function parseOperand(text: string, whole: string): OperandSpecification {
  if (FIXED.has(text)) return { code: text, size: text === 'AL' || text === 'CL' || text === 'AH' ? 'b' : text === 'AX' || text === 'DX' ? 'w' : text.startsWith('e') ? 'v' : '' };
  for (const letter of LETTERS) {
    if (text.startsWith(letter) && SIZES.includes(text.slice(letter.length))) return { code: letter, size: text.slice(letter.length) };
  }
  throw new Error(`encoding '${whole}': no operand '${text}'`);
}

export function parseEncoding(text: string): Encoding {
  const [main, modifierText = ''] = text.split(';');
  const modifiers = new Set(modifierText.trim().split(/\s+/).filter(Boolean));
  const tokens = main.trim().split(/\s+/);
  const vex = tokens[0] === 'VEX';
  if (vex) tokens.shift();
  let prefix: MandatoryPrefix = 'any';
  if (tokens[0] === 'NP') {
    prefix = 'none';
    tokens.shift();
  } else if (/^(66|F3|F2)$/.test(tokens[0]) && /^[0-9A-F]{2}/.test(tokens[1] ?? '')) {
    prefix = tokens.shift() as MandatoryPrefix;
  }
  let map: OpcodeMap = 0;
  if (tokens[0] === '0F' && tokens.length > 1) {
    tokens.shift();
    map = 1;
    const escape = tokens[0] as string;
    if (escape === '38' || escape === '3A') {
      map = escape === '38' ? 2 : 3;
      tokens.shift();
    }
  }
  const first = /^([0-9A-F]{2})(\+?)(?:\/([0-7]))?$/.exec(tokens.shift() as string);
  if (!first) throw new Error(`encoding '${text}': no opcode`);
  const second = /^([0-9A-F]{2})(\+?)$/.exec(tokens[0] ?? '');
  if (second) tokens.shift();
  const operands = tokens.map((token) => parseOperand(token, text));
  const usesModrm = operands.some((o) => /^[EGRMSCDVWUPQN]$/.test(o.code));
  return {
    text,
    map,
    opcode: Number.parseInt(first[1], 16),
    prefix,
    vex,
    vvvv: operands.some((o) => o.code === 'B'),
    digit: first[3] === undefined ? -1 : Number(first[3]),
    modrm: second ? Number.parseInt(second[1], 16) : -1,
    modrmCount: second ? (second[2] ? 8 : 1) : 0,
    hasModrm: usesModrm || first[3] !== undefined || second !== null,
    operands,
    modifiers,
    sized: operands.some((o) => 'vzyp'.includes(o.size) && o.size !== '') || ['d64', 'f64', 's16', 's32', 's64'].some((m) => modifiers.has(m)),
  };
}
