import { defineConfig } from 'vitest/config';

/** Guests in a browser: slow, and only where there is one. */
export default defineConfig({
  test: {
    include: ['tests/browser/*.browser.ts'],
    testTimeout: 300_000,
    hookTimeout: 60_000,
  },
});
