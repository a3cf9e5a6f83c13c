/**
 * Runs a guest in headless Chromium: serves a page whose worker (examples/browser-worker.ts) runs it, and hands back what it posted. No driver is
 * needed: the page sends its result to the server it came from.
 */

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import type { GuestMessage, GuestRequest } from '../../examples/browser-worker.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const CANDIDATES = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
/** Path of a Chromium, if there is one; $CHROMIUM names another. */
export const chromium: string | undefined = CANDIDATES.find((path) => path !== undefined && existsSync(path));

const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--disable-extensions', '--disable-dev-shm-usage',
];
const TYPES: Record<string, string> = { '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript' };
/** A bundler would resolve these. */
const PACKAGES: Record<string, string> = { exitless: '/dist/index.js', fflate: '/node_modules/fflate/esm/browser.js', fzstd: '/node_modules/fzstd/esm/index.mjs' };

const page = (request: GuestRequest): string => `<!doctype html><meta charset="utf-8"><title>Exitless</title><script type="module">
  const messages = [];
  const finish = (message) => fetch('/result', { method: 'POST', body: JSON.stringify([...messages, message]) });
  if (!crossOriginIsolated) finish({ kind: 'failed', reason: 'the page is not cross-origin isolated' });
  const worker = new Worker('/.cache/programs/examples/browser-worker.js', { type: 'module' });
  worker.onerror = (event) => finish({ kind: 'failed', reason: event.message ?? 'the worker did not load' });
  worker.onmessage = ({ data }) => (data.kind === 'output' ? messages.push(data) : finish(data));
  worker.postMessage(${JSON.stringify(request)});
</script>`;

export type BrowserRun = Extract<GuestMessage, { kind: 'ended' }> & { output: string };

/** Runs `request` in a browser of its own. `files` are what its URLs name. Rejects where the guest or the browser fails, or after `seconds`. */
export async function runInBrowser(request: GuestRequest, files: Readonly<Record<string, Uint8Array>>, seconds: number): Promise<BrowserRun> {
  const profile = mkdtempSync(join(tmpdir(), 'exitless-chromium-'));
  let server: Server | undefined;
  let stop = (): void => {};
  try {
    const messages = await new Promise<GuestMessage[]>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no result after ${seconds} s`)), seconds * 1000);
      const listening = createServer((message, response) => {
        serve(message, response, request, files).then((result) => result && resolve(result), reject);
      });
      server = listening;
      listening.listen(0, '127.0.0.1', () => {
        const { port } = listening.address() as AddressInfo;
        const child = spawn(chromium as string, [...FLAGS, `--user-data-dir=${profile}`, `http://127.0.0.1:${port}/`], { stdio: 'ignore', detached: true });
        child.once('error', reject);
        child.once('exit', (status) => reject(new Error(`the browser ended with status ${status}`)));
        stop = () => {
          clearTimeout(timer);
          child.removeAllListeners('exit');
          // Its renderers are of its process group.
          if (child.pid) process.kill(-child.pid, 'SIGKILL');
        };
      });
    });
    const last = messages.at(-1) as GuestMessage;
    if (last.kind !== 'ended') throw new Error(last.kind === 'failed' ? last.reason : 'no end');
    const output = messages.map((message) => (message.kind === 'output' ? message.text : '')).join('');
    return { ...last, output };
  } finally {
    stop();
    server?.closeAllConnections();
    server?.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

/** Answers a request of the page's; resolves to the result where it is that. */
async function serve(message: IncomingMessage, response: ServerResponse, request: GuestRequest, files: Readonly<Record<string, Uint8Array>>): Promise<GuestMessage[] | undefined> {
  const path = normalize(decodeURIComponent(new URL(message.url ?? '/', 'http://localhost').pathname));
  const isolation = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' };
  const send = (type: string, body: string | Uint8Array): void => void response.writeHead(200, { ...isolation, 'Content-Type': type }).end(body);
  if (path === '/') send('text/html', page(request));
  else if (path === '/result') {
    const chunks: Buffer[] = [];
    for await (const chunk of message) chunks.push(chunk as Buffer);
    send('text/plain', '');
    return JSON.parse(Buffer.concat(chunks).toString()) as GuestMessage[];
  } else if (files[path]) send('application/octet-stream', files[path]);
  else if (existsSync(join(ROOT, path)) && TYPES[extname(path)]) {
    const source = readFileSync(join(ROOT, path), 'utf8');
    send(TYPES[extname(path)], source.replace(/(from\s*)['"]([a-z]+)['"]/g, (whole, from, name) => (PACKAGES[name] ? `${from}'${PACKAGES[name]}'` : whole)));
  } else response.writeHead(404, isolation).end();
  return undefined;
}
