/** Defines all instructions: importing this fills `instructions`. */

import './arithmetic.ts';
import './logic.ts';
import './multiply-divide.ts';
import './shift.ts';
import './bit.ts';
import './bit-manipulation.ts';
import './data-transfer.ts';
import './stack.ts';
import './control.ts';
import './flags.ts';
import './convert.ts';
import './miscellaneous.ts';
import './mmx.ts';
import './sse-move.ts';
import './sse-integer.ts';
import './sse-float.ts';
import './sse-convert.ts';
import './sse4.ts';
import './cryptography.ts';
import './string.ts';
import './system.ts';
import './x87.ts';
