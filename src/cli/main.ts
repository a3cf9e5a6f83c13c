#!/usr/bin/env node
/** The `exitless` command. */

import { useBranchHints } from '../platform/node/index.ts';
import { runCommandLine } from './command-line.ts';

useBranchHints();
process.exitCode = await runCommandLine(process.argv.slice(2));
