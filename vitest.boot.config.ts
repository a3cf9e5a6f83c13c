import { defineConfig } from 'vitest/config';

/** Real kernels: slow, so they are not among the tests of `npm test`. */
export default defineConfig({
  test: {
    include: ['tests/boot/*.boot.ts'],
    testTimeout: process.env.JIT === 'force' ? 1_800_000 : 300_000,
  },
});
