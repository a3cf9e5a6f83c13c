/**
 * The PC's devices, made, put on their buses and wired to the interrupt controllers. Interrupt lines of ISA devices go to
 * the 8259 pair and to the I/O APIC both, as on a board.
 */

import { A20Gate } from '../devices/a20-gate.ts';
import { AcpiPm, PM1_CONTROL_BYTES, PM1_EVENT_BYTES } from '../devices/acpi-pm.ts';
import type { Clock, InterruptLine } from '../devices/clock.ts';
import { DEBUG_CONSOLE_PORT, DEBUG_EXIT_BYTES, DEBUG_EXIT_PORT, DebugConsole, DebugExit, POST_CODE_PORT, PostCodePort, SYSTEM_CONTROL_PORT_A, SystemControlPortA } from '../devices/debug-ports.ts';
import { FW_CFG_DMA_PORT, FW_CFG_DMA_PORTS, FW_CFG_PORT, FW_CFG_PORTS, FwCfg } from '../devices/fw-cfg.ts';
import { HPET_BYTES, Hpet } from '../devices/hpet.ts';
import { I8042 } from '../devices/i8042.ts';
import { PciHost } from '../devices/pci-host.ts';
import { Pit8254 } from '../devices/pit-8254.ts';
import { PM_TIMER_BYTES, PmTimer } from '../devices/pm-timer.ts';
import { ResetControl } from '../devices/reset-control.ts';
import { RtcCmos } from '../devices/rtc-cmos.ts';
import { attachTestDevice } from '../devices/test-device.ts';
import { UART_BYTES, Uart16550 } from '../devices/uart-16550.ts';
import { IO_APIC_SIZE, type IoApic } from '../interrupts/io-apic.ts';
import { ELCR_PORT, ELCR_PORTS, PIC_MASTER_PORT, PIC_PORTS, PIC_SLAVE_PORT, Pic } from '../interrupts/pic.ts';
import { Bus } from '../memory/bus.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import * as map from './memory-map.ts';

export interface PcDevicesOptions {
  memory: GuestMemory;
  clock: Clock;
  ioApic: IoApic;
  vcpuCount: number;
  epochSeconds: number;
  testDevice: boolean;
  onSerialByte(byte: number): void;
  onDebugByte(byte: number): void;
  onReset(): void;
  onSleep(sleepType: number): void;
  onDebugExit(exitStatus: number): void;
}

const AUXILIARY_IRQ = 12;
const PIT_PORT = 0x40;
const PIT_PORTS = 4;
const CONTROL_PORT_B = 0x61;
const RTC_PORTS = 2;

export class PcDevices {
  readonly ports = new Bus('I/O ports');
  readonly mmio = new Bus('MMIO');
  readonly pic = new Pic();
  readonly uart: Uart16550;
  readonly pci: PciHost;
  readonly acpi: AcpiPm;

  constructor(options: PcDevicesOptions) {
    const { clock, ioApic, memory } = options;
    const { ports, mmio } = this;
    const a20 = new A20Gate();
    /** An ISA interrupt: the same wire to the 8259s and to the I/O APIC's pin. */
    const isa = (irq: number, gsi = irq): InterruptLine => {
      const lines = [this.pic.line(irq), ioApic.line(gsi)];
      return { set: (asserted) => { for (const line of lines) line.set(asserted); } };
    };

    ports.register(PIC_MASTER_PORT, PIC_PORTS, 'PIC master', this.pic.master);
    ports.register(PIC_SLAVE_PORT, PIC_PORTS, 'PIC slave', this.pic.slave);
    ports.register(ELCR_PORT, ELCR_PORTS, 'ELCR', this.pic.elcr);
    mmio.register(map.IOAPIC_BASE, IO_APIC_SIZE, 'I/O APIC', ioApic);

    const gsis = Array.from({ length: map.IOAPIC_PINS }, (_, pin) => ioApic.line(pin));
    // In legacy replacement the HPET takes the lines of PIT and RTC over.
    const hpet = new Hpet({ clock, lines: gsis, irq0: isa(map.PIT_IRQ, map.PIT_GSI), irq8: isa(map.RTC_IRQ) });
    mmio.register(map.HPET_BASE, HPET_BYTES, 'HPET', hpet);
    const pit = new Pit8254({ clock, line: hpet.pitLine });
    ports.register(PIT_PORT, PIT_PORTS, 'PIT', pit);
    ports.register(CONTROL_PORT_B, 1, 'port B', pit.controlPortB);
    const rtc = new RtcCmos({
      clock,
      line: hpet.rtcLine,
      epochSeconds: options.epochSeconds,
      lowRamBytes: memory.lowBytes,
      highRamBytes: memory.ramBytes - memory.lowBytes,
      cpuCount: options.vcpuCount,
    });
    ports.register(map.RTC_PORT, RTC_PORTS, 'RTC', rtc);

    const pmTimer = new PmTimer(clock, 24);
    this.acpi = new AcpiPm({ clock, pmTimer, line: isa(map.SCI_IRQ), onSleep: options.onSleep });
    ports.register(map.PM1_EVENT_PORT, PM1_EVENT_BYTES, 'ACPI PM1 event', this.acpi.pm1Event);
    ports.register(map.PM1_CONTROL_PORT, PM1_CONTROL_BYTES, 'ACPI PM1 control', this.acpi.pm1Control);
    ports.register(map.PM_TIMER_PORT, PM_TIMER_BYTES, 'ACPI PM timer', pmTimer);

    this.uart = new Uart16550({ clock, line: isa(map.COM1_IRQ), onTransmit: options.onSerialByte, waitForRts: true });
    ports.register(map.COM1_PORT, UART_BYTES, 'COM1', this.uart);
    const i8042 = new I8042({ keyboardLine: isa(map.KEYBOARD_IRQ), auxiliaryLine: isa(AUXILIARY_IRQ), a20, onReset: options.onReset });
    ports.register(map.I8042_DATA_PORT, 1, 'i8042 data', i8042.dataPort);
    ports.register(map.I8042_COMMAND_PORT, 1, 'i8042 command', i8042.commandPort);

    this.pci = new PciHost(new ResetControl(options.onReset));
    ports.register(map.PCI_CONFIG_PORT, map.PCI_CONFIG_SIZE, 'PCI configuration', this.pci);

    const fwCfg = new FwCfg({ ramBytes: memory.ramBytes, cpuCount: options.vcpuCount, memory });
    ports.register(FW_CFG_PORT, FW_CFG_PORTS, 'fw_cfg', fwCfg);
    if (fwCfg.dmaPort) ports.register(FW_CFG_DMA_PORT, FW_CFG_DMA_PORTS, 'fw_cfg DMA', fwCfg.dmaPort);
    ports.register(POST_CODE_PORT, 1, 'POST code', new PostCodePort());
    ports.register(SYSTEM_CONTROL_PORT_A, 1, 'port A', new SystemControlPortA(a20, options.onReset));
    ports.register(DEBUG_CONSOLE_PORT, 1, 'debug console', new DebugConsole(options.onDebugByte));
    if (options.testDevice) attachTestDevice(ports, mmio, gsis);
    ports.register(DEBUG_EXIT_PORT, DEBUG_EXIT_BYTES, 'debug exit', new DebugExit(options.onDebugExit));
  }
}
