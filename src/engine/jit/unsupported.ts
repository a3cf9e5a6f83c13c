/** Thrown while an instruction is being built: it is the interpreter's. */
export class Unsupported extends Error {}
