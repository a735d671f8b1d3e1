/** What is there in a sidecar, for whoever looks after it. */
import { map, string, uint } from './messages.js';
import { MalformedError } from './reader.js';

/** One execution. No source, state or value is told. */
export interface ExecutionInfo {
  /** For `killExecution`. */
  id: number;
  session: number;
  client: string;
  pid: number;
  panelId?: string;
  handlerName?: string;
  state: 'queued' | 'running' | 'suspended';
  ageMs: number;
  cpuUs: number;
  memoryBytes?: number;
  pendingCalls: number;
}

export interface ExecutionList {
  /** At most 1,000: running ones first, then suspended, then queued. */
  executions: ExecutionInfo[];
  total: number;
}

export function readExecutions(fields: Record<string, unknown>): ExecutionList {
  const value = fields['executions'];
  if (!Array.isArray(value)) throw new MalformedError('`executions` is not an array');
  return { executions: value.map((item: unknown) => readExecution(map(item, 'executions'))), total: uint(fields, 'total') };
}

function readExecution(fields: Record<string, unknown>): ExecutionInfo {
  const state = string(fields, 'state');
  if (state !== 'queued' && state !== 'running' && state !== 'suspended') throw new MalformedError('`state` is none of those known');
  const info: ExecutionInfo = {
    id: uint(fields, 'id'),
    session: uint(fields, 'session'),
    client: string(fields, 'client'),
    pid: uint(fields, 'pid'),
    state,
    ageMs: uint(fields, 'ageMs'),
    cpuUs: uint(fields, 'cpuUs'),
    pendingCalls: uint(fields, 'pendingCalls'),
  };
  if (fields['panelId'] !== undefined) info.panelId = string(fields, 'panelId');
  if (fields['handlerName'] !== undefined) info.handlerName = string(fields, 'handlerName');
  if (fields['memoryBytes'] !== undefined) info.memoryBytes = uint(fields, 'memoryBytes');
  return info;
}
