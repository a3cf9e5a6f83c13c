/** A mistake in what the user gave us: one line that says what is wrong and what to do. The CLI then exits with code 2. */
export class UserError extends Error {
  override name = 'UserError';
}
