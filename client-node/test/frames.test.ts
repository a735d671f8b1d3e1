/** Frames and messages without a socket. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { NexusError } from '@nexus/sidecar';
import { beginFrame, endFrame, FrameSplitter } from '../dist/esm/frames.js';
import { encodeFields } from '../dist/esm/fields.js';
import { Kind } from '../dist/esm/kinds.js';
import { readAnswer } from '../dist/esm/answers.js';
import { writeExecute } from '../dist/esm/requests.js';
import { MalformedError } from '../dist/esm/reader.js';
import { CLIENT_VERSION } from '../dist/esm/version.js';
import { Writer } from '../dist/esm/writer.js';

const MAX = 1 << 20;

function frame(id: number, text: string): Buffer {
  const writer = new Writer(16, MAX);
  const at = beginFrame(writer, Kind.metricsAnswer, id);
  encodeFields(writer, { text });
  endFrame(writer, at, MAX);
  return Buffer.from(writer.written());
}

function collect(): { texts: unknown[]; splitter: FrameSplitter } {
  const texts: unknown[] = [];
  const splitter = new FrameSplitter(MAX, (bytes, start, end) => texts.push(readAnswer(bytes, start, end).fields['text']));
  return { texts, splitter };
}

const code = (wanted: string) => (error: unknown) => error instanceof NexusError && error.code === wanted;

test('frames arrive whole however the stream is cut', () => {
  const texts = ['', 'one', 'x'.repeat(300), 'y'.repeat(70_000), 'last'];
  const stream = Buffer.concat(texts.map((text, index) => frame(index + 1, text)));
  for (const size of [1, 2, 3, 4, 5, 7, 11, 64, 1000, 65536, stream.length]) {
    const { texts: got, splitter } = collect();
    for (let at = 0; at < stream.length; at += size) splitter.push(stream.subarray(at, at + size));
    assert.deepEqual(got, texts, `pieces of ${size}`);
  }
});

test('two frames arrive whole when cut at any one byte', () => {
  const stream = Buffer.concat([frame(1, 'first'), frame(2, 'second')]);
  for (let cut = 0; cut <= stream.length; cut++) {
    const { texts, splitter } = collect();
    splitter.push(stream.subarray(0, cut));
    splitter.push(stream.subarray(cut));
    assert.deepEqual(texts, ['first', 'second'], `cut at ${cut}`);
  }
});

test('a length of 0 or beyond the limit is refused before anything is reserved, also when it comes in pieces', () => {
  for (const length of ['00000000', '01001000', 'ffffffff']) {
    const header = Buffer.from(length, 'hex');
    assert.throws(() => collect().splitter.push(header), code('PROTOCOL_ERROR'));
    const { splitter } = collect();
    splitter.push(header.subarray(0, 3));
    assert.throws(() => splitter.push(header.subarray(3)), code('PROTOCOL_ERROR'));
  }
});

test('a request beyond the frame limit is refused here', () => {
  const writer = new Writer(16, 4 * MAX);
  const at = writeExecute(writer, 1, { source: 'x'.repeat(MAX) });
  assert.throws(() => endFrame(writer, at, MAX), code('INVALID_ARGUMENT'));
});

test('payloads of any size get the shortest bin header', () => {
  for (const [size, head] of [[10, 'c40b'], [253, 'c4ff'], [254, 'c50100'], [65_532, 'c5ffff'], [65_533, 'c600010000']] as const) {
    const writer = new Writer(16, MAX);
    const at = writeExecute(writer, 1, { state: 'x'.repeat(size) });
    endFrame(writer, at, MAX);
    const bytes = writer.written();
    const key = bytes.indexOf('state') + 5;
    assert.equal(bytes.subarray(key, key + head.length / 2).toString('hex'), head);
  }
});

test('answers that break a rule of SPEC 1 are malformed', () => {
  const bad: Record<string, string> = {
    'not an array of three': '92 cc88 01',
    'four elements': '94 cc88 01 80 80',
    'kind is no u8': '93 cd0188 01 80',
    'kind negative': '93 ff 01 80',
    'id too large': '93 cc88 cf0000000100000000 80',
    'fields are no map': '93 cc88 01 90',
    'fields are nil': '93 cc88 01 c0',
    'key is no str': '93 cc88 01 81 01 01',
    'a key twice': '93 cc88 01 82 a161 01 a161 02',
    'a key twice, nested': '93 cc88 01 81 a178 82 a161 01 a161 02',
    'invalid UTF-8 in a value': '93 cc88 01 81 a161 a2c328',
    'invalid UTF-8 in a value, one byte': '93 cc88 01 81 a161 a1ff',
    'invalid UTF-8 in a key': '93 cc88 01 81 a1ff 01',
    'an extension': '93 cc88 01 81 a161 d6ff00000001',
    'bytes behind': '93 cc88 01 80 00',
    truncated: '93 cc88 01 81 a161',
    'a count beyond the bytes': '93 cc88 01 dfffffffff',
    'more than 65,536 values': `93 cc88 01 81 a161 dd00010000 ${'01'.repeat(65_536)}`,
    'a key with nil, then again': '93 cc88 01 82 a161 c0 a161 01',
    'nested 17 levels': `93 cc88 01 81 a161 ${'91'.repeat(16)} 01`,
  };
  for (const [what, text] of Object.entries(bad)) {
    const bytes = Buffer.from(text.replaceAll(' ', ''), 'hex');
    assert.throws(() => readAnswer(bytes, 0, bytes.length), MalformedError, what);
  }
  const good = Buffer.from(`93cc880181a161${'91'.repeat(15)}01`, 'hex');
  assert.equal(readAnswer(good, 0, good.length).kind, Kind.metricsAnswer);
});

test('nil under a key is the same as no key', () => {
  const bytes = Buffer.from('93cc880182a161c0a16201', 'hex');
  assert.deepEqual(readAnswer(bytes, 0, bytes.length).fields, { b: 1 });
});

test('a replacement character that was sent as such is valid UTF-8', () => {
  const text = `\ufffd${'ä'.repeat(30)}`;
  const bytes = frame(1, text);
  assert.equal(readAnswer(bytes, 4, bytes.length).fields['text'], text);
});

test('the version that the sidecar logs is the version of the package', () => {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string };
  assert.equal(CLIENT_VERSION, version);
});
