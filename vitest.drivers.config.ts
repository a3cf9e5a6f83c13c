import { defineConfig } from 'vitest/config';

/** All drivers, states and numbers of vCPUs: `npm test` has a cross-section. */
export default defineConfig({
  test: {
    include: ['tests/drivers/*.drivers.ts'],
    testTimeout: 120_000,
  },
});
