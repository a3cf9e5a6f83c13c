import { describe, expect, it } from 'vitest';
import { dependencyClosure, packageNames, parseIndexRecords } from './package-index.ts';

const SHA = 'a'.repeat(64);
const paragraph = (name: string, fields: string[] = []): string =>
  [`Package: ${name}`, 'Version: 1', ...fields, `SHA256: ${SHA}`, 'Description: x', ' Depends: not a field'].join('\n');
const closure = (names: string[], ...paragraphs: string[]): string[] =>
  dependencyClosure(names, parseIndexRecords(paragraphs.join('\n\n'))).map(({ name }) => name);

describe('the package index', () => {
  it('is read by paragraphs, and what has no checksum is left out', () => {
    const text = `${paragraph('a', ['Depends: b, c', 'Pre-Depends: d', 'Provides: v (= 1), w'])}\n\nPackage: half\nVersion: 2\n`;
    expect(parseIndexRecords(text)).toEqual([{ name: 'a', version: '1', sha256: SHA, depends: 'd, b, c', provides: ['v', 'w'] }]);
  });

  it('names dependencies by groups of alternatives, without versions, architectures and qualifiers', () => {
    expect(packageNames('libc6 (>= 2.34), python3:any, a | b (<< 1) | c [amd64], ')).toEqual([
      ['libc6'],
      ['python3'],
      ['a', 'b', 'c'],
    ]);
    expect(packageNames('')).toEqual([]);
  });
});

describe('the dependency closure', () => {
  it('has what is needed, dependencies first, and once', () => {
    const plan = [
      paragraph('a', ['Depends: b, c']),
      paragraph('b', ['Depends: c']),
      paragraph('c', ['Pre-Depends: d']),
      paragraph('d'),
    ];
    expect(closure(['a'], ...plan)).toEqual(['d', 'c', 'b', 'a']);
    expect(closure(['c', 'b'], ...plan)).toEqual(['d', 'c', 'b']);
  });

  it('takes of alternatives and virtual packages what apt chose', () => {
    const plan = [paragraph('a', ['Depends: mail | x | y, awk']), paragraph('y'), paragraph('mawk', ['Provides: awk'])];
    expect(closure(['a'], ...plan)).toEqual(['y', 'mawk', 'a']);
  });

  it('leaves out what only installing needs, unless it is asked for', () => {
    const plan = [
      paragraph('a', ['Depends: debconf | debconf-2.0, b']),
      paragraph('b'),
      paragraph('debconf', ['Depends: perl']),
      paragraph('perl'),
    ];
    expect(closure(['a'], ...plan)).toEqual(['b', 'a']);
    expect(closure(['a', 'debconf'], ...plan)).toEqual(['b', 'a', 'perl', 'debconf']);
  });

  it('ends where packages depend on each other', () => {
    expect(closure(['libc6'], paragraph('libc6', ['Depends: libgcc']), paragraph('libgcc', ['Depends: libc6']))).toEqual([
      'libgcc',
      'libc6',
    ]);
  });

  it('throws where apt would not install what is named', () => {
    expect(() => closure(['b'], paragraph('a'))).toThrow('apt would not install b');
  });
});
