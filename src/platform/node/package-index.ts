/** What Debian's package index says of a package, and which packages a program needs to run. Source: Debian Policy 5 and 7. */

/** A package's paragraph in the index. */
export interface IndexRecord {
  name: string;
  version: string;
  sha256: string;
  /** The fields Depends and Pre-Depends, joined. */
  depends: string;
  /** Names of virtual packages that it is. */
  provides: string[];
}

/** Paragraphs as `apt-cache show` prints them; what has no name, version or SHA-256 is left out. */
export function parseIndexRecords(text: string): IndexRecord[] {
  return text.split(/\n\n+/).flatMap((paragraph): IndexRecord[] => {
    const field = (key: string): string => new RegExp(`^${key}: (.*)$`, 'm').exec(paragraph)?.[1].trim() ?? '';
    const [name, version, sha256] = ['Package', 'Version', 'SHA256'].map(field);
    if (!name || !version || !/^[0-9a-f]{64}$/.test(sha256)) return [];
    const depends = [field('Pre-Depends'), field('Depends')].filter(Boolean).join(', ');
    return [{ name, version, sha256, depends, provides: packageNames(field('Provides')).flat() }];
  });
}

/** `a | b:any (>= 1), c` is [[a, b], [c]]. */
export function packageNames(relations: string): string[][] {
  const groups = relations.split(',').map((group) => group.split('|').map((one) => one.trim().replace(/[\s(:[].*$/, '')));
  return groups.map((group) => group.filter(Boolean)).filter((group) => group.length > 0);
}

/** Programs do without these: only the scripts that run while a package is installed want them. */
const FOR_INSTALLATION = new Set(['adduser', 'debconf', 'dpkg', 'init-system-helpers', 'install-info', 'lsb-base', 'ucf']);

/**
 * The packages of `plan` that those named need, themselves included, each behind what it depends on where that goes. `plan` is what
 * apt would install: it has chosen among alternatives and versions.
 */
export function dependencyClosure(names: readonly string[], plan: readonly IndexRecord[]): IndexRecord[] {
  const records = new Map<string, IndexRecord>();
  for (const record of plan) for (const name of record.provides) records.set(name, record);
  for (const record of plan) records.set(record.name, record);
  const found = new Set<IndexRecord>();
  const closure: IndexRecord[] = [];
  const visit = (record: IndexRecord): void => {
    if (found.has(record)) return;
    found.add(record);
    for (const group of packageNames(record.depends)) {
      const chosen = group.map((name) => records.get(name)).find((candidate) => candidate !== undefined);
      if (chosen && !FOR_INSTALLATION.has(chosen.name)) visit(chosen);
    }
    closure.push(record);
  };
  for (const name of names) {
    const record = records.get(name);
    if (!record) throw new Error(`apt would not install ${name}`);
    visit(record);
  }
  return closure;
}
