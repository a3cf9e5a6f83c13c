/**
 * The A20 gate as the keyboard controller and port 0x92 share it: who writes last wins. What a closed gate does
 * to addresses is the machine's business.
 */

export class A20Gate {
  private readonly onChange: (enabled: boolean) => void;
  private state = true;

  /** Open at power-on, as firmware leaves it. */
  constructor(onChange: (enabled: boolean) => void = () => {}) {
    this.onChange = onChange;
  }

  get enabled(): boolean {
    return this.state;
  }

  set(enabled: boolean): void {
    if (enabled === this.state) return;
    this.state = enabled;
    this.onChange(enabled);
  }
}
