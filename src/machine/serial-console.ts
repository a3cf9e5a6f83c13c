/** A byte stream to and from the guest: output is handed out in chunks, input goes to the UART's queue. */

export type OutputListener = (bytes: Uint8Array) => void;

const CHUNK = 1024;

export class SerialConsole {
  /** Sees every byte as it comes, before it is handed out. */
  onByte: (byte: number) => void = () => {};
  private readonly receive: (bytes: Uint8Array) => void;
  private readonly listeners = new Set<OutputListener>();
  private readonly chunk = new Uint8Array(CHUNK);
  private used = 0;

  constructor(receive: (bytes: Uint8Array) => void) {
    this.receive = receive;
  }

  /** Subscribes to output; returns what unsubscribes. A listener may keep the bytes it gets. */
  onOutput(listener: OutputListener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Types `bytes` at the console. What the guest is not ready for waits. */
  write(bytes: Uint8Array): void {
    this.receive(bytes);
  }

  /** A byte from the guest. Lines are handed out when they end, the rest when the slice does. */
  put(byte: number): void {
    this.chunk[this.used++] = byte;
    this.onByte(byte);
    if (byte === 10 || this.used === CHUNK) this.flush();
  }

  flush(): void {
    if (!this.used) return;
    const bytes = this.chunk.slice(0, this.used);
    this.used = 0;
    for (const listener of this.listeners) listener(bytes);
  }

  dispose(): void {
    this.flush();
    this.listeners.clear();
  }
}
