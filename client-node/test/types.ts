/** What the compiler must accept and refuse. Never run: `tsc` on the tests is the test. */
import { NexusError, type NexusRuntime, type Segment, type StateMutation } from '@nexus/sidecar';

interface State {
  count: number;
  user?: { name: string };
}

interface Exts {
  http: { get(url: string): Promise<string> };
}

export async function checked(runtime: NexusRuntime): Promise<number> {
  const http = { get: async (url: string) => url };
  const result = await runtime.run<number, State, Exts>('return $state.count', { state: { count: 1 }, extensions: { http } });
  const value: number = result.value;
  for (const mutation of result.stateMutations) {
    if (mutation.op === 'set' && mutation.key === 'count') mutation.value.toFixed();
    // @ts-expect-error no such key
    if (mutation.key === 'counter') return 0;
  }
  // @ts-expect-error the value is a number
  const text: string = result.value;
  // @ts-expect-error a state of another type
  await runtime.run<unknown, State, Exts>('', { state: { count: 'x' } });
  // @ts-expect-error a method is missing
  await runtime.run<unknown, State, Exts>('', { extensions: { http: {} } });
  // @ts-expect-error an extension with another signature
  await runtime.run<unknown, State, Exts>('', { extensions: { http: { get: (url: number) => Promise.resolve(`${url}`) } } });
  // @ts-expect-error an extension holds methods
  await runtime.run<unknown, State, { http: { get: string } }>('', {});
  await runtime.run<unknown, State>('', { onSegment: (segment: Segment<State>) => segment.stateMutations[0]?.key });
  return value + text.length;
}

export async function resident(runtime: NexusRuntime): Promise<unknown> {
  const state = await runtime.createState<State>({ count: 1 });
  const plain = await runtime.run<number>('return 1', { args: 1 });
  plain.value.toFixed();
  const { value } = await runtime.run<number, State, Exts>('return $state.count', { state: state.exclusive() });
  await runtime.run<unknown, State>('return 1', { state });
  // @ts-expect-error a state of another type
  await runtime.run<unknown, { count: string }>('', { state });
  // @ts-expect-error and so is what an execution demands of it
  await runtime.run<unknown, { count: number; more: string }>('', { state: state.expect(1) });
  await state.patch({ set: { count: 2 }, delete: ['user'] });
  // @ts-expect-error a value of another type
  await state.patch({ set: { count: 'x' } });
  // @ts-expect-error no such key
  await state.patch({ delete: ['counter'] });
  const whole: number = (await state.snapshot()).state.count;
  const part: number | undefined = (await state.snapshot(['count'])).state.count;
  // @ts-expect-error no such key
  await state.snapshot(['counter']);
  // @ts-expect-error a state of another type
  await runtime.createState<State>({ count: 'x' });
  await runtime.createState<State>(Buffer.of(0x80));
  const untyped = await runtime.createState({ name: 'x', n: whole + value + (part ?? 0) });
  await untyped.patch({ set: { anything: 1 }, delete: ['else'] });
  await runtime.run<unknown, State>('', { state: untyped });
  return (await untyped.snapshot(['name'])).state['name'];
}

export async function unchecked(runtime: NexusRuntime): Promise<unknown> {
  // Parameters of extensions need no types; a class with a private state may be one.
  const { value, stateMutations } = await runtime.run('return 1', { state: { any: 1 }, extensions: { http: { get: async (url) => url } } });
  const mutation: StateMutation | undefined = stateMutations[0];
  // @ts-expect-error unknown until it is looked at
  value.length;
  // @ts-expect-error no such option
  await runtime.run('', { timeout: 5 });
  // @ts-expect-error a handler is text
  await runtime.run(5);
  return mutation?.key;
}

export function errors(error: unknown): string {
  if (!(error instanceof NexusError)) return 'foreign';
  switch (error.code) {
    case 'TIMEOUT':
      return String(error.retryable);
    // @ts-expect-error no such code
    case 'TIMED_OUT':
      return '';
    default:
      return error.location === undefined ? error.message : String(error.location.line);
  }
}

export async function disposed(create: () => NexusRuntime): Promise<void> {
  await using runtime = create();
  await runtime.ping();
}
