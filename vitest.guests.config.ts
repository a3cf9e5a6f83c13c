import { defineConfig } from 'vitest/config';

/**
 * Kernels and programs that others wrote, at work: minutes each, so they are not among the tests of `npm test`. One file at a time,
 * as a run keeps a core busy. `npm run test:guests -- -u` records the golden output anew.
 */
export default defineConfig({
  test: {
    include: ['tests/guests/*.guest.ts'],
    testTimeout: 3_600_000,
    fileParallelism: false,
  },
});
