/** Canonical addresses, as expressions: those whose upper bits repeat the highest one that counts. SDM 1 3.3.7.1, with 5-level paging SDM 3A 4.5. */

import type { Expression } from '../wasm/expression.ts';

/** An i32 0 or 1; `shift` is how many bits do not count (state.CANONICAL_SHIFT, for bases state.BASE_CANONICAL_SHIFT), an i64. */
export const isCanonical = (address: Expression, shift: Expression): Expression => address.shl(shift).shrS(shift).eq(address);
