/** Node as the host of an experiment: its clock and its event loop. */

import type { ExperimentHost } from '../../experiment/runner.ts';

export const nodeHost: ExperimentHost = {
  seconds: () => performance.now() / 1000,
  pause: () => new Promise((resolve) => setImmediate(resolve)),
};
