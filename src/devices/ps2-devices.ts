/**
 * What hangs at the keyboard controller: a keyboard (MF2, scan code set 2) and a two-button mouse, as far as drivers ask:
 * reset, identify, parameters, enable. Source: IBM PS/2 technical reference, keyboard and mouse. Not modelled: typematic
 * repeat (the host repeats keys), scan code sets 1 and 3, the mouse's wrap mode.
 */

const ACK = 0xfa;
const RESEND = 0xfe;
const SELF_TEST_PASSED = 0xaa;
const OUTPUT_BYTES = 64;

/** A serial device at the controller: takes command bytes, queues answers. */
export abstract class Ps2Device {
  private readonly output: number[] = [];
  private lastSent = 0;
  /** Told when there is something to send. */
  onOutput: () => void = () => {};

  get hasOutput(): boolean {
    return this.output.length > 0;
  }

  /** Takes the next byte; `hasOutput` must be true. */
  shift(): number {
    this.lastSent = this.output.shift() ?? RESEND;
    return this.lastSent;
  }

  /** A byte from the controller. */
  abstract command(byte: number): void;

  /** Queues an answer; a guest that asks and never reads gets no more than fits. */
  protected send(...bytes: number[]): void {
    if (this.output.length + bytes.length > OUTPUT_BYTES) return;
    this.output.push(...bytes);
    this.onOutput();
  }

  protected resend(): void {
    this.send(this.lastSent);
  }

  protected flush(): void {
    this.output.length = 0;
  }

  protected get queued(): number {
    return this.output.length;
  }
}

/** Codes the keyboard keeps; one more place is for saying that there were more. */
const KEYBOARD_QUEUE = 16;
const KEYBOARD_OVERRUN = 0x00;
const KEYBOARD_ID = [0xab, 0x83] as const;
const SCAN_CODE_SET = 2;

export class Ps2Keyboard extends Ps2Device {
  private scanning = true;
  private parameterOf = 0;
  private ledBits = 0;
  private overrun = false;

  /** Scroll, num and caps lock: bits 0, 1 and 2. */
  get leds(): number {
    return this.ledBits;
  }

  /** Keys pressed and released, in scan code set 2. Dropped while the guest has scanning off. */
  type(scanCodes: readonly number[]): void {
    if (!this.scanning) return;
    const fits = this.queued + scanCodes.length <= KEYBOARD_QUEUE;
    if (fits) this.send(...scanCodes);
    else if (!this.overrun) this.send(KEYBOARD_OVERRUN);
    this.overrun = !fits;
  }

  command(byte: number): void {
    const command = this.parameterOf;
    this.parameterOf = 0;
    // A parameter is below 0x80; a command in its place begins anew.
    if (command !== 0 && byte < 0x80) this.parameter(command, byte);
    else this.begin(byte);
  }

  private parameter(command: number, byte: number): void {
    if (command === 0xf0 && byte === 0) this.send(ACK, SCAN_CODE_SET);
    else if (command === 0xf0 && byte !== SCAN_CODE_SET) this.send(RESEND);
    else {
      if (command === 0xed) this.ledBits = byte & 0x07;
      this.send(ACK);
    }
  }

  private begin(byte: number): void {
    switch (byte) {
      case 0xed: // LEDs
      case 0xf0: // scan code set
      case 0xf3: // typematic rate and delay
        this.parameterOf = byte;
        this.send(ACK);
        break;
      case 0xee:
        this.send(byte); // echo
        break;
      case 0xf2:
        this.send(ACK, ...KEYBOARD_ID);
        break;
      case 0xf4:
      case 0xf5:
      case 0xf6:
        this.flush();
        this.scanning = byte !== 0xf5;
        this.send(ACK);
        break;
      case 0xfe:
        this.resend();
        break;
      case 0xff:
        this.flush();
        this.scanning = true;
        this.ledBits = 0;
        this.send(ACK, SELF_TEST_PASSED);
        break;
      default:
        this.send(RESEND);
    }
  }
}

const MOUSE_ID = 0x00;
const MOUSE_QUEUE = 16;
const DEFAULT_RESOLUTION = 2;
const DEFAULT_SAMPLE_RATE = 100;

const MouseStatus = { remote: 0x40, reporting: 0x20, scaling2: 0x10 } as const;
const Packet = { always1: 0x08, negativeX: 0x10, negativeY: 0x20, overflowX: 0x40, overflowY: 0x80 } as const;

export class Ps2Mouse extends Ps2Device {
  private mode = 0;
  private resolution = DEFAULT_RESOLUTION;
  private sampleRate = DEFAULT_SAMPLE_RATE;
  private parameterOf = 0;
  private buttons = 0;
  private deltaX = 0;
  private deltaY = 0;

  /** Movement to the right and up, and the buttons held: left 1, right 2, middle 4. */
  move(deltaX: number, deltaY: number, buttons: number): void {
    this.deltaX += Math.trunc(deltaX);
    this.deltaY += Math.trunc(deltaY);
    this.buttons = buttons & 0x07;
    if (this.mode & MouseStatus.reporting && !(this.mode & MouseStatus.remote) && this.queued < MOUSE_QUEUE) this.sendPacket();
  }

  command(byte: number): void {
    const command = this.parameterOf;
    this.parameterOf = 0;
    if (command === 0xe8) this.resolution = byte & 3;
    else if (command === 0xf3) this.sampleRate = byte;
    if (command !== 0) this.send(ACK);
    else this.begin(byte);
  }

  private begin(byte: number): void {
    switch (byte) {
      case 0xe6: // scaling 1:1, 2:1
      case 0xe7:
        this.setMode(MouseStatus.scaling2, byte === 0xe7);
        break;
      case 0xe8: // resolution
      case 0xf3: // sample rate
        this.parameterOf = byte;
        this.send(ACK);
        break;
      case 0xe9:
        this.send(ACK, this.mode | this.buttons, this.resolution, this.sampleRate);
        break;
      case 0xea: // stream, remote
      case 0xf0:
        this.setMode(MouseStatus.remote, byte === 0xf0);
        break;
      case 0xeb:
        this.send(ACK);
        this.sendPacket();
        break;
      case 0xf2:
        this.send(ACK, MOUSE_ID);
        break;
      case 0xf4:
      case 0xf5:
        this.setMode(MouseStatus.reporting, byte === 0xf4);
        break;
      case 0xf6:
        this.setDefaults();
        this.send(ACK);
        break;
      case 0xfe:
        this.resend();
        break;
      case 0xff:
        this.flush();
        this.setDefaults();
        this.send(ACK, SELF_TEST_PASSED, MOUSE_ID);
        break;
      default:
        this.send(RESEND);
    }
  }

  private setMode(bit: number, on: boolean): void {
    this.mode = on ? this.mode | bit : this.mode & ~bit;
    this.deltaX = this.deltaY = 0;
    this.send(ACK);
  }

  private setDefaults(): void {
    this.mode = 0;
    this.resolution = DEFAULT_RESOLUTION;
    this.sampleRate = DEFAULT_SAMPLE_RATE;
    this.deltaX = this.deltaY = 0;
  }

  private sendPacket(): void {
    const x = Math.max(-256, Math.min(255, this.deltaX));
    const y = Math.max(-256, Math.min(255, this.deltaY));
    const signs = (x < 0 ? Packet.negativeX : 0) | (y < 0 ? Packet.negativeY : 0);
    const overflows = (x !== this.deltaX ? Packet.overflowX : 0) | (y !== this.deltaY ? Packet.overflowY : 0);
    this.deltaX = this.deltaY = 0;
    this.send(this.buttons | Packet.always1 | signs | overflows, x & 0xff, y & 0xff);
  }
}
