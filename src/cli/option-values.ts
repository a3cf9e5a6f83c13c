/** Values of options: text from the command line in, values out, or one line that says what is wrong and what is right. */

import { readFileSync } from 'node:fs';
import {
  type CostProfile,
  costProfileNamed,
  type KvmFeatureSet,
  MAX_RAM_BYTES,
  type Parsed,
  parseCostProfile,
  parseKvmFeatures,
  parseStrategies,
  type Strategy,
  TRACEPOINTS,
  type TracepointName,
  UserError,
  type CpuModel,
  parseCpuModel,
} from '../index.ts';
import { fileErrorReason } from '../platform/node/index.ts';

const MAX_VCPUS = 254;
const MAX_SEED = 2 ** 32 - 1;
const UNIT_BYTES: Record<string, number> = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };
const RAM_STEP = 65536;

function valueOf<Value>(result: Parsed<Value>, option = ''): Value {
  if (!result.ok) throw new UserError(option + result.error);
  return result.value;
}

/** `256M`, `1G`, `1.5G`; the unit is a must, so that nobody gets 256 bytes. */
export function memorySize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([KMG])(?:i?B)?$/i.exec(text);
  if (!match) {
    const hint = /^\d+$/.test(text) ? `: say ${text}M or ${text}G` : ', like 256M or 1G';
    throw new UserError(`--memory: "${text}" is not a size with a unit${hint}`);
  }
  const bytes = Number(match[1]) * UNIT_BYTES[match[2].toUpperCase()];
  if (bytes === 0 || bytes % RAM_STEP !== 0 || bytes > MAX_RAM_BYTES) {
    throw new UserError(`--memory: ${text} is not a multiple of 64K up to ${MAX_RAM_BYTES / 2 ** 30}G`);
  }
  return bytes;
}

/** A parser of whole numbers in a range. */
export function wholeNumber(option: string, lowest: number, highest: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < lowest || value > highest) {
      throw new UserError(`${option}: "${text}" is not a whole number from ${lowest} to ${highest}`);
    }
    return value;
  };
}

export const vcpuCount = wholeNumber('--smp', 1, MAX_VCPUS);
export const seedValue = wholeNumber('--seed', 0, MAX_SEED);

/** Positive seconds: `30`, `0.5`. */
export function seconds(text: string): number {
  const value = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || value === 0) throw new UserError(`--timeout: "${text}" is not a positive number of seconds`);
  return value;
}

export function choice<Value extends string>(option: string, values: readonly Value[]): (text: string) => Value {
  return (text) => {
    const value = values.find((candidate) => candidate === text);
    if (value === undefined) throw new UserError(`${option}: "${text}" is not one of ${values.join(', ')}`);
    return value;
  };
}

export const cpuModel = (text: string): CpuModel => valueOf(parseCpuModel(text));
export const kvmFeatures = (text: string): KvmFeatureSet => valueOf(parseKvmFeatures(text));
export const strategyList = (text: string): Strategy[] => valueOf(parseStrategies(text), '--strategy: ');

/** A profile's name, or a JSON file: what has a dot or a slash in it is a file. */
export function costProfile(text: string): CostProfile {
  if (!/[./]/.test(text)) return valueOf(costProfileNamed(text), '--cost: ');
  let json: string;
  try {
    json = readFileSync(text, 'utf8');
  } catch (error) {
    throw new UserError(`--cost: cannot read ${text}: ${fileErrorReason(error)}`, { cause: error });
  }
  return valueOf(parseCostProfile(json, text), '--cost: ');
}

/** `kvm_exit,kvm_eoi`. */
export function tracepointList(text: string): TracepointName[] {
  return text.split(',').map((word) => choice('--events', TRACEPOINTS)(word.trim()));
}
