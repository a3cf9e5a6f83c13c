/** The result of reading something a user wrote: a value, or one line that says what is wrong and what to do. */
export type Parsed<Value> = { ok: true; value: Value } | { ok: false; error: string };

export const parsed = <Value>(value: Value): Parsed<Value> => ({ ok: true, value });
export const refused = (error: string): Parsed<never> => ({ ok: false, error });
