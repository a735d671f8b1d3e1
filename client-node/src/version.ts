/** Name and version that the sidecar logs. A test compares it with package.json. */
export const CLIENT_VERSION = '0.1.0';
export const CLIENT_NAME = `@nexus/sidecar ${CLIENT_VERSION}`;
