/* The boundary between guest and host: every import, every export's contract, and the one struct that both sides read.
 * Its twin on the host side is sidecar/src/engine/abi.rs; the two are checked against each other at start. */
#ifndef NX_ABI_H
#define NX_ABI_H

#include <stdint.h>

#define NX_ABI_VERSION 6u

#define NX_IMPORT(name) __attribute__((import_module("nexus"), import_name(#name))) name
#define NX_EXPORT(name) __attribute__((export_name(#name))) name

/* Results of host calls. Not negative: success (a length, a count, a call number). */
enum {
    NX_DENIED = -1,    /* no capability */
    NX_LIMIT = -2,     /* a limit of the execution is used up; the host has noted which */
    NX_INVALID = -3,   /* an argument that the host does not accept: no grant can allow it */
    NX_NOT_FOUND = -4, /* no such key, or no such extension */
    NX_INTERNAL = -5,  /* the host failed */
    NX_NO_METHOD = -6, /* the extension has no such method */
};

/* state_get: the low bits hold the length, this bit says that the key may not be written. */
#define NX_READ_ONLY 0x40000000
/* state_get, in the capacity: the language itself asks (await, JSON, a conversion), which is no violation of anything. The host
 * knows the names that this is true of. */
#define NX_QUIET 0x80000000u

int32_t NX_IMPORT(__nexus_state_get)(const uint8_t *key, uint32_t key_len, uint8_t *out, uint32_t capacity);
int32_t NX_IMPORT(__nexus_state_set)(const uint8_t *key, uint32_t key_len, const uint8_t *value, uint32_t value_len);
int32_t NX_IMPORT(__nexus_state_delete)(const uint8_t *key, uint32_t key_len);
int32_t NX_IMPORT(__nexus_state_has)(const uint8_t *key, uint32_t key_len);
int32_t NX_IMPORT(__nexus_state_keys)(uint8_t *out, uint32_t capacity);
int32_t NX_IMPORT(__nexus_emit_event)(const uint8_t *name, uint32_t name_len, const uint8_t *payload, uint32_t payload_len);
/* view: array of [view id, command, params] as MessagePack */
int32_t NX_IMPORT(__nexus_view_command)(const uint8_t *view, uint32_t view_len);
/* Returns the number of the call, by which nx_resume names it. */
int32_t NX_IMPORT(__nexus_ext_call)(const uint8_t *name, uint32_t name_len, const uint8_t *method, uint32_t method_len,
                                    const uint8_t *args, uint32_t args_len);
/* what: 0 = does the extension exist (0 or 1), 1 = its methods, 2 = all names (1 and 2: MessagePack into out, its length returned) */
int32_t NX_IMPORT(__nexus_ext_query)(uint32_t what, const uint8_t *name, uint32_t name_len, uint8_t *out, uint32_t capacity);
int32_t NX_IMPORT(__nexus_log)(uint32_t level, const uint8_t *text, uint32_t text_len);
double NX_IMPORT(__nexus_now)(void);
/* What the host says of the call that it has just refused. what: 0 = a sentence, 1 = the capability that would have allowed it.
 * Their length is returned, 0 when there is nothing to say. */
int32_t NX_IMPORT(__nexus_refusal)(uint32_t what, uint8_t *out, uint32_t capacity);
int32_t NX_IMPORT(__nexus_random_bytes)(uint8_t *out, uint32_t len);

/* What nx_compile, nx_run and nx_resume return. */
enum {
    NX_DONE = 0,      /* out: bytecode, or the handler's value as MessagePack */
    NX_SUSPENDED = 1, /* extension calls are outstanding */
    NX_FAILED = 2,    /* out: the error as a MessagePack map */
    NX_STUCK = 3,     /* waits for a promise that nothing can settle */
    NX_BAD_CALL = 4,  /* the host used an export wrongly */
    NX_TOO_DEEP = 5,  /* stack style: the stack is too large to be suspended; out_len: its bytes */
};

/* Where the host reads what an export left behind. Addresses and lengths are the guest's claims: the host checks them. */
typedef struct NxShared {
    uint32_t abi_version;
    uint32_t interrupt; /* written by the host's watchdog; not 0: stop */
    uint32_t out;
    uint32_t out_len;
    uint32_t memory_used; /* bytes that the handler holds, beyond the pristine image */
    uint32_t memory_peak;
    uint32_t ticks;         /* how often the interrupt handler was asked; each is about 10,000 operations */
    uint32_t out_of_memory; /* not 0: an allocation was refused */
    uint32_t inbox;         /* where small inputs go without an allocation */
    uint32_t inbox_capacity;
    uint32_t memory_wanted; /* what memory_used would have been with the allocation that was refused last */
    uint32_t fail_allocation; /* for tests: the allocation of this number, from 1, is refused. No import and no export writes it */
    uint32_t for_memory;    /* not 0: what it has failed with, or is stuck for, is a want of memory */
} NxShared;

#endif
