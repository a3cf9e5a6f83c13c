import { describe, expect, it } from 'vitest';
import { TRACEPOINTS, type TraceEvent, type TraceFields, Tracer } from './tracepoints.ts';

describe('the tracer', () => {
  it('is enabled while anybody listens', () => {
    const tracer = new Tracer(() => 0);
    expect(tracer.enabled).toBe(false);
    const [stopOne, stopOther] = [tracer.subscribe(() => {}), tracer.subscribe(() => {}, ['kvm_eoi'])];
    stopOne();
    expect(tracer.enabled).toBe(true);
    stopOther();
    stopOther();
    expect(tracer.enabled).toBe(false);
  });

  it('stamps events with the running vCPU and its time', () => {
    let now = 1500;
    const tracer = new Tracer(() => now);
    const events: TraceEvent[] = [];
    tracer.subscribe((event) => events.push(event));
    tracer.vcpu = 3;
    tracer.emit({ name: 'kvm_eoi', apicid: 3, vector: 0x30 });
    tracer.vcpu = 0;
    now = 1700;
    tracer.emit({ name: 'kvm_set_irq', gsi: 4, level: 1, irq_source_id: 0 });
    expect(events).toEqual([
      { name: 'kvm_eoi', apicid: 3, vector: 0x30, vcpu: 3, timestampNanoseconds: 1500 },
      { name: 'kvm_set_irq', gsi: 4, level: 1, irq_source_id: 0, vcpu: 0, timestampNanoseconds: 1700 },
    ]);
  });

  it('gives a listener the events it named, typed by name', () => {
    const tracer = new Tracer(() => 0);
    const vectors: number[] = [];
    tracer.subscribe((event) => vectors.push(event.vector), ['kvm_eoi', 'kvm_pv_eoi']);
    tracer.emit({ name: 'kvm_eoi', apicid: 0, vector: 1 });
    tracer.emit({ name: 'kvm_ack_irq', irqchip: 'IOAPIC', pin: 4 });
    tracer.emit({ name: 'kvm_pv_eoi', apicid: 0, vector: 2 });
    expect(vectors).toEqual([1, 2]);
  });

  it('a listener may end its own subscription while it is called', () => {
    const tracer = new Tracer(() => 0);
    const seen: string[] = [];
    const stop = tracer.subscribe(() => {
      seen.push('first');
      stop();
    });
    tracer.subscribe(() => seen.push('second'));
    tracer.emit({ name: 'kvm_eoi', apicid: 0, vector: 1 });
    tracer.emit({ name: 'kvm_eoi', apicid: 0, vector: 1 });
    expect(seen).toEqual(['first', 'second', 'second']);
  });

  it('lists every tracepoint there is', () => {
    const all: Record<keyof TraceFields, true> = Object.fromEntries(TRACEPOINTS.map((name) => [name, true])) as never;
    expect(Object.keys(all)).toHaveLength(new Set(TRACEPOINTS).size);
    type Missing = Exclude<keyof TraceFields, (typeof TRACEPOINTS)[number]>;
    const missing: Missing[] = [] satisfies never[];
    expect(missing).toEqual([]);
  });
});
