/** Vectors of the exceptions that instructions raise themselves. SDM 3A 6.15. */

export const DIVIDE_ERROR = 0;
export const DEBUG = 1;
export const BREAKPOINT = 3;
export const OVERFLOW = 4;
export const BOUND_RANGE = 5;
export const INVALID_OPCODE = 6;
export const GENERAL_PROTECTION = 13;
