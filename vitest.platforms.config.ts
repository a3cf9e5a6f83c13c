import { defineConfig } from 'vitest/config';

/** Guests in a browser and in other versions of Node: slow, and only where there are any. */
export default defineConfig({
  test: {
    include: ['tests/platforms/*.platform.ts'],
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
});
