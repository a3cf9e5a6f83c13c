import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { DRIVER_NAMES } from '../guest/apic/apic-driver.ts';
import { PLATFORM_NAMES, PLATFORMS } from '../machine/platforms/all.ts';
import { cpuLimit, platformOf } from './driver-platform.ts';

it('is what docs/interrupts.md tells of each driver: its platform, and how many CPUs there are for it', () => {
  const text = readFileSync(new URL('../../docs/interrupts.md', import.meta.url), 'utf8');
  const rows = [...text.matchAll(/^\| (\w+) \| ([\w-]+) \|.*\| (\d+)[^|]*\|$/gm)].map(([, driver, platform, most]) => [
    driver,
    platform,
    most,
  ]);
  expect(rows).toEqual(DRIVER_NAMES.map((driver) => [driver, platformOf(driver), `${cpuLimit(driver).most}`]));
});

it('has a driver for every platform', () => {
  expect(new Set(DRIVER_NAMES.map(platformOf))).toEqual(new Set(PLATFORM_NAMES));
});

it('numbers the processors of a platform differently from each other, up to the last', () => {
  for (const { name, maxVcpus, apicId } of Object.values(PLATFORMS)) {
    const ids = Array.from({ length: maxVcpus }, (_, position) => apicId(position));
    expect(new Set(ids).size, name).toBe(maxVcpus);
    expect(ids[0], name).toBe(name === 'es7000-cluster' ? 1 : 0);
  }
});
