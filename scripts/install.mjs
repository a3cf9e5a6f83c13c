/**
 * Installs what package-lock.json names, unless node_modules has just that: npm's own record of what it installed tells.
 * Runs before npm's scripts, so it needs nothing but Node and npm.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');

function packagesOf(path) {
  try {
    return JSON.parse(readFileSync(join(root, path), 'utf8')).packages;
  } catch {
    return undefined;
  }
}

function isInstalled() {
  const wanted = packagesOf('package-lock.json');
  const installed = packagesOf('node_modules/.package-lock.json');
  if (!wanted || !installed) return false;
  const isPackage = (path) => path.startsWith('node_modules/');
  // What is optional may be for other platforms.
  return (
    Object.entries(wanted).every(([path, { version, optional }]) => {
      if (!isPackage(path)) return true;
      return installed[path] ? installed[path].version === version : optional === true;
    }) && Object.keys(installed).every((path) => !isPackage(path) || wanted[path])
  );
}

if (!isInstalled()) {
  const { status, error } = spawnSync('npm', ['ci', '--include=dev', '--no-audit', '--no-fund'], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    shell: process.platform === 'win32',
  });
  if (error) console.error(`cannot run npm: ${error.message}`);
  process.exitCode = error ? 1 : (status ?? 1);
}
