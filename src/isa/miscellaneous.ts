/**
 * NOP, PAUSE, fences, cache-line flushes and prefetches. SDM 2, instruction reference. Memory is coherent and in order here, so
 * that fences and prefetches do nothing; a flush only checks that it may read.
 */

import { instruction } from './instruction.ts';

const nothing = (): void => {};

instruction('NOP', '90 ; B0', {}, nothing);
instruction('PAUSE', 'F3 90 ; B0', {}, nothing);
// The hint space: CLDEMOTE, ENDBR, BNDxxx and others are NOPs where their features are off. Operands are not accessed.
instruction('NOP', ['0F 19 Ev', '0F 1A Ev', '0F 1B Ev', '0F 1C Ev', '0F 1D Ev', '0F 1E Ev', '0F 1F Ev'], { unaccessed: true }, nothing);
instruction('PREFETCH', ['0F 18 Ev', '0F 0D M'], { unaccessed: true }, nothing);

instruction('LFENCE', 'NP 0F AE E8+', { feature: 'sse2' }, nothing);
instruction('MFENCE', 'NP 0F AE F0+', { feature: 'sse2' }, nothing);
instruction('SFENCE', 'NP 0F AE F8+', { feature: 'sse' }, nothing);

instruction('CLFLUSH', 'NP 0F AE/7 Mb', { feature: 'clflush' }, (_x, line) => void line.unsigned());
instruction('CLFLUSHOPT', '66 0F AE/7 Mb', { feature: 'clflushopt' }, (_x, line) => void line.unsigned());
instruction('CLWB', '66 0F AE/6 Mb', { feature: 'clwb' }, (_x, line) => void line.unsigned());
