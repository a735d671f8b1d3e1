/**
 * Finding the sidecar's program: named, in the package for this platform, or on PATH. What is there but cannot run here is
 * told as such, with what to do.
 *
 * Packages are looked for from this file and from the program's main file, never from the current folder: what happens to lie
 * there must not become a program that runs.
 */
import { accessSync, closeSync, constants, existsSync, openSync, readFileSync, readSync, realpathSync, statSync } from 'node:fs';
import * as modules from 'node:module'; // webpack answers for a `createRequire` that is imported by its name, and knows no package there
import { delimiter, dirname, isAbsolute, join, resolve } from 'node:path';

import { NexusError } from './errors.js';
import { here } from './here.cjs';
import { CLIENT_VERSION } from './version.js';

const PROGRAM = 'nexus-sidecar';
const CLIENT = '@nexus/sidecar';

/** By this variable the command of this package tells the program for which process it stands. The command itself sees it only where it led back to itself. */
export const STANDS_FOR = 'NEXUS_STANDS_FOR';
/** Where the command is in this package. */
const COMMAND = ['dist', 'esm', 'bin.js'];

/** Platforms, by Node's names, and whether there is a package for them. */
const PLATFORMS: Readonly<Record<string, boolean>> = { 'linux-x64': true, 'linux-arm64': false, 'darwin-arm64': false };

/** What an ELF file says of the machine that it is for (`e_machine`), by Node's names. */
const MACHINES: Readonly<Record<number, string>> = { 62: 'x64', 183: 'arm64', 3: 'ia32', 40: 'arm', 243: 'riscv64', 22: 's390x', 21: 'ppc64' };

/** The head of an ELF file. */
const HEAD_BYTES = 64;
const ANEW = 'install it anew';

export interface Lookup {
  binaryPath?: string | undefined;
  env: Readonly<Record<string, string | undefined>>;
  /** This platform, unless another is meant. */
  platform?: string;
  /** Files from which packages are looked for. */
  from?: readonly (string | undefined)[];
}

/** The path of the program; an error that lists every place when it is nowhere. */
export function findBinary({ binaryPath, env, platform = `${process.platform}-${process.arch}`, from = [here, mainFile()] }: Lookup): string {
  // A path that was named is meant: no other program is tried in its place.
  if (binaryPath !== undefined) return named(binaryPath, 'option `binaryPath`');
  const backHere = env[STANDS_FOR] !== undefined;
  const fromEnv = env['NEXUS_SIDECAR_BIN'] ?? '';
  if (fromEnv !== '' && !backHere) return named(fromEnv, 'environment variable NEXUS_SIDECAR_BIN');

  const looked = ['option `binaryPath`: not set', `environment variable NEXUS_SIDECAR_BIN: ${fromEnv === '' ? 'not set' : `${fromEnv}, which led here`}`];
  const found = packaged(platform, from, looked);
  if (found !== undefined) return found;
  const onPath = backHere ? undefined : searchPath(platform, env['PATH'] ?? '', looked);
  if (onPath !== undefined) return onPath;
  if (backHere) looked.push(`PATH: not looked at; this was started as the program that was found (${STANDS_FOR} is set)`);
  throw notFound(`${PROGRAM} was not found. Looked at:\n  ${looked.join('\n  ')}\n${remedy(platform)}`);
}

/**
 * The first program on PATH. What stands there may be the command of this package, which looks for the program as well, and on PATH
 * finds itself: in its place, the program is looked for from there.
 */
function searchPath(platform: string, path: string, looked: string[]): string | undefined {
  for (const folder of new Set(path.split(delimiter))) {
    if (!isAbsolute(folder)) continue; // a relative PATH entry would run a program of the current folder
    const candidate = join(folder, PROGRAM);
    if (!existsSync(candidate)) continue;
    const obstacle = whyNot(candidate);
    const command = byBothPaths(candidate).find(isCommand);
    if (obstacle === undefined && command === undefined) return candidate;
    looked.push(`${candidate}: ${obstacle ?? `is the command of ${CLIENT}, and looks for the program as well`}`);
    const found = command === undefined ? undefined : packaged(platform, [command], looked);
    if (found !== undefined) return found;
  }
  looked.push(`PATH: ${path === '' ? '(empty)' : path}`);
  return undefined;
}

/** Whether a file is the command of this package, in this or another installation. */
function isCommand(file: string): boolean {
  if (!file.endsWith(join('/', ...COMMAND))) return false;
  try {
    const manifest = join(dirname(file), ...COMMAND.slice(1).map(() => '..'), 'package.json');
    return (JSON.parse(readFileSync(manifest, 'utf8')) as { name?: unknown }).name === CLIENT;
  } catch {
    return false;
  }
}

/** The program of the package for this platform. What was looked at and did not help is added to `looked`. */
function packaged(platform: string, from: readonly (string | undefined)[], looked: string[]): string | undefined {
  const name = packageOf(platform);
  const places = from.filter((file) => file !== undefined);
  if (places.length === 0) {
    looked.push(`package ${name}: could not look (this file is bundled and does not know where it is)`);
    return undefined;
  }
  const manifests = manifestsOf(name, places);
  if (manifests.length === 0) {
    const other = Object.keys(PLATFORMS).find((one) => one !== platform && manifestsOf(packageOf(one), places).length > 0);
    const instead = other === undefined ? '' : `; ${packageOf(other)} is, but this is ${platform}: were the packages installed on another machine?`;
    looked.push(`package ${name}: not installed${instead}`);
    return undefined;
  }
  for (const manifest of manifests) {
    const version = versionIn(manifest);
    const program = join(dirname(manifest), 'bin', PROGRAM);
    const obstacle = version === CLIENT_VERSION ? whyNot(program) : `is of version ${version}, and this client of ${CLIENT_VERSION}; the two have to agree`;
    if (obstacle === undefined) return program;
    looked.push(`package ${name}: ${program} ${obstacle}`);
  }
  return undefined;
}

/** What a manifest says, or that it says nothing. */
function versionIn(manifest: string): string {
  try {
    return String((JSON.parse(readFileSync(manifest, 'utf8')) as { version?: unknown }).version);
  } catch {
    return 'unknown (its package.json cannot be read)';
  }
}

function packageOf(platform: string): string {
  return `@nexus/sidecar-${platform}`;
}

/**
 * The manifests of a package, as these files find them; or as the client does that they find: where packages see only what they
 * ask for themselves (pnpm), a bundle sees the client and not the client's own. Each by the path that it goes by and by its own, since
 * Node keeps links where it is told to (`--preserve-symlinks`).
 */
function manifestsOf(name: string, from: readonly string[]): string[] {
  const resolved = (file: string, wanted: string): string[] => {
    try {
      return byBothPaths(modules.createRequire(file).resolve(`${wanted}/package.json`));
    } catch {
      return []; // not from there
    }
  };
  const found = from.flatMap(byBothPaths).flatMap((file) => {
    const own = resolved(file, name);
    return own.length > 0 ? own : resolved(file, CLIENT).flatMap((client) => resolved(client, name));
  });
  return [...new Set(found.map((manifest) => byBothPaths(manifest).at(-1) ?? manifest))];
}

/** A path, and the one without links if that is another. */
function byBothPaths(file: string): string[] {
  try {
    const real = realpathSync(file);
    return real === file ? [file] : [file, real];
  } catch {
    return [file];
  }
}

/** The file that Node was started with: a bundle stands beside the packages that it needs. */
function mainFile(): string | undefined {
  try {
    return process.argv[1] === undefined ? undefined : realpathSync(process.argv[1]);
  } catch {
    return undefined;
  }
}

function remedy(platform: string): string {
  const itself = 'or set NEXUS_SIDECAR_BIN or the option `binaryPath` to a program that you have built';
  const built = PLATFORMS[platform];
  if (built === true) {
    return `What to do: npm i ${packageOf(platform)}@${CLIENT_VERSION} (npm leaves it out with --omit=optional), ${itself}`;
  }
  const elsewhere = `run it on linux-x64 and connect to its socket (option \`connect\`), ${itself}`;
  const why = built === false ? `${packageOf(platform)} is not built yet` : `there is no ${PROGRAM} for ${platform}`;
  return `What to do: ${why}; ${elsewhere}`;
}

function named(path: string, where: string): string {
  const full = resolve(path);
  const obstacle = whyNot(full);
  if (obstacle !== undefined) throw notFound(`${where} names ${full}, which is not an executable file: it ${obstacle}`);
  return full;
}

/** Why a file cannot be run here. */
function whyNot(path: string): string | undefined {
  let mode: number;
  try {
    const stat = statSync(path);
    if (!stat.isFile()) return 'is not a file';
    mode = stat.mode;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EACCES' ? 'stands where this user may not look' : 'does not exist';
  }
  try {
    accessSync(path, constants.X_OK);
  } catch {
    if ((mode & 0o111) === 0) return 'may not be executed by anybody (its mode has no x)';
    return 'may not be executed: by this user, or at all on this file system (noexec)';
  }
  return flawOf(path);
}

/** What is wrong with a program's bytes. What is neither machine code nor a script a shell would take for one, and end well with an empty one. */
function flawOf(path: string): string | undefined {
  const head = Buffer.alloc(HEAD_BYTES);
  let [len, size] = [0, 0];
  try {
    const file = openSync(path, 'r');
    try {
      len = readSync(file, head, 0, head.length, 0);
      size = statSync(path).size;
    } finally {
      closeSync(file);
    }
  } catch {
    return undefined; // it may be executed though not read
  }
  if (len === 0) return `is empty; ${ANEW}`;
  if (head.toString('latin1', 0, 2) === '#!') return undefined;
  if (head.toString('latin1', 0, 4) !== '\x7fELF') return `is no program: it begins neither as machine code nor as a script; ${ANEW}`;
  const machine = head[5] === 2 ? head.readUInt16BE(18) : head.readUInt16LE(18);
  const meant = MACHINES[machine] ?? `machine ${machine}`;
  if (meant !== process.arch) return `is a program for ${meant}, and this is ${process.arch}`;
  return len === head.length && endIn(head) <= size ? undefined : `is damaged: it is cut off; ${ANEW}`;
}

/** How long the head of a 64-bit little-endian ELF file says that the file is at least. */
function endIn(head: Buffer): number {
  if (head[4] !== 2 || head[5] !== 1) return 0;
  const tableEnd = (start: number, size: number, count: number): number => Number(head.readBigUInt64LE(start)) + head.readUInt16LE(size) * head.readUInt16LE(count);
  return Math.max(tableEnd(32, 54, 56), tableEnd(40, 58, 60));
}

function notFound(message: string): NexusError {
  return new NexusError('SIDECAR_NOT_FOUND', message);
}
