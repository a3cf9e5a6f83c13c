import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { eoiDocumentParts, withGeneratedParts } from './eoi-document.ts';
import { pvEoiPicture } from './eoi-picture.ts';

const read = (name: string): string => readFileSync(new URL(`../../docs/${name}`, import.meta.url), 'utf8');

/** It boots each driver's machine in every state: seconds, but not on a machine that is busy. */
const TIMEOUT = 300_000;

describe('docs/eoi.md', () => {
  it(
    'has the listings, the table and the picture that the code gives (npm run docs writes them anew)',
    async () => {
      const document = read('eoi.md');
      expect(document).toBe(withGeneratedParts(document, await eoiDocumentParts()));
      expect(read('pv-eoi.svg')).toBe(pvEoiPicture());
    },
    TIMEOUT,
  );
});
